"""The look inside a trained network: feature maps, what channels respond to, first-layer filters, guided gradients."""
