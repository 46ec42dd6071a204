"""What the parameters of Swin and ViT are called elsewhere, and in what order elsewhere keeps their channels.

The canonical names are timm 1.0's, which are also those of our own backbones.
"""
