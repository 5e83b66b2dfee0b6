"""What every stage uses: parameters, paths, whole-or-absent files, checked tables, errors."""
