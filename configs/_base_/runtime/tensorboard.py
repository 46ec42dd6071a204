# Beside runtime/segmentation.py: scalars for TensorBoard too. Needs the package tensorboard.
visualizer = dict(
    type="Visualizer",
    vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
)
