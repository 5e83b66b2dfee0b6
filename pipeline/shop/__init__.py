"""Your own catalogue: products and labels in your form become a source that `sample` reads."""
