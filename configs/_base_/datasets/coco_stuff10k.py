# COCO-Stuff 10k, 171 classes; else as coco_stuff.py.
_base_ = ["coco_stuff.py"]
data_root = "data/coco_stuff10k"
train_dataloader = dict(dataset=dict(type="visionattn.COCOStuff10k", data_root=data_root, split="train2014"))
val_dataloader = dict(dataset=dict(type="visionattn.COCOStuff10k", data_root=data_root, split="test2014"))
test_dataloader = val_dataloader
