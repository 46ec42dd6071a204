"""RAFT-Stereo, Scene Flow, both passes, 200,000 iterations of 8 crops of 320x720.

    torchrun --nproc-per-node=2 tools/train.py --launcher pytorch \
        stereo/raft-stereo_2xb4-200k_sceneflow-320x720 --amp
    visionattn train stereo/raft-stereo_2xb4-200k_sceneflow-320x720 --amp
    visionattn test stereo/raft-stereo_2xb4-200k_sceneflow-320x720 raftstereo-sceneflow.pth
    visionattn test stereo/raft-stereo_2xb4-200k_sceneflow-320x720 raftstereo-sceneflow.pth \
        --cfg-options test_dataloader.dataset.split=test400 test_evaluator.protocol=raft

Published: princeton-vl/RAFT-Stereo@6068c1a, the README's command, 2 RTX 6000; EPE 0.72 is commonly quoted for Scene
Flow (by other papers; not in the README). The last command is the authors' own evaluation, on 400 of the 4,370 pairs.
Not run here.
"""

_base_ = [
    "../_base_/datasets/sceneflow.py",
    "../_base_/stereo_pipelines/raft_stereo.py",
    "../_base_/schedules/stereo_onecycle_200k.py",
    "../_base_/runtime/stereo.py",
]
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(type="visionattn.RAFTStereo", iterations=32, training_iterations=22),
    loss=dict(type="visionattn.SequenceL1Loss", gamma=0.9, max_disparity=700),
    padding=dict(side="centre", fill="edge"),
    # To -1..1, as the network wants it.
    data_preprocessor=dict(type="visionattn.StereoPreprocessor", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
)
train_dataloader = dict(batch_size=4, dataset=dict(image_pass="both", transforms=_base_.train_transforms))
default_hooks = dict(checkpoint=dict(interval=10000))
