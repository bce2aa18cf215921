"""Networks that inherit from torchvision's, which takes seconds to import: opened when one is made."""
