"""Compute: models, attributions, losses, metrics, the passes they share, and the trials.

Dimension letters, the same everywhere: B images of a batch, N explanations, C input channels (3,
or 6 for
B-cos), H W pixels, h w the native resolution of a map, K classes, D features, P patches.
"""
