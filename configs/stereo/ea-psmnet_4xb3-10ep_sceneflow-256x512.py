"""EA-PSMNet: PSMNet with efficient attention on the features of each view; all else is the same.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/ea-psmnet_4xb3-10ep_sceneflow-256x512
    visionattn train stereo/ea-psmnet_4xb3-10ep_sceneflow-256x512
    visionattn train stereo/ea-psmnet_4xb3-10ep_sceneflow-256x512 --load-from PSMNET_CHECKPOINT
    visionattn test stereo/ea-psmnet_4xb3-10ep_sceneflow-256x512 CHECKPOINT

The efficient-attention paper (Shen et al., WACV 2021) reports EPE 0.48 with a tuned recipe; that recipe and the place
of the module were not to be found. Here it is on the features of each view, and the recipe is PSMNet's, so that the two
differ in the attention alone. Not run here.
Elsewhere: --cfg-options model.network.attention.spp=None model.network.attention.hourglass.type=EfficientAttention
"""

_base_ = ["./psmnet_4xb3-10ep_sceneflow-256x512.py"]

model = dict(network=dict(attention=dict(spp=dict(type="EfficientAttention"))))
