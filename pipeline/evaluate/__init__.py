"""The evaluate stage: score every system's runs against the ESCI labels."""
