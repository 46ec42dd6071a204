"""NL-PSMNet: PSMNet with a non-local block on the features of each view; all else is the same.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/nl-psmnet_4xb3-10ep_sceneflow-256x512
    visionattn train stereo/nl-psmnet_4xb3-10ep_sceneflow-256x512
    visionattn train stereo/nl-psmnet_4xb3-10ep_sceneflow-256x512 --load-from PSMNET_CHECKPOINT
    visionattn test stereo/nl-psmnet_4xb3-10ep_sceneflow-256x512 CHECKPOINT

The efficient-attention paper (Shen et al., WACV 2021) compares with such a network; where its module stands is not
known. Here it is on the features of each view, and the recipe is PSMNet's, so that the two differ in the attention
alone. A volume of 192 disparities at 256x512 has 393,216 tokens, too many for it. Not run here.
Elsewhere: --cfg-options model.network.attention.spp=None model.network.attention.hourglass.type=NonLocal
"""

_base_ = ["./psmnet_4xb3-10ep_sceneflow-256x512.py"]

model = dict(network=dict(attention=dict(spp=dict(type="NonLocal"))))
