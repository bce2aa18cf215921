"""Networks that inherit from torchvision's: imported when one is made, since that takes seconds."""
