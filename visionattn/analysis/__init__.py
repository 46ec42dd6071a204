"""What a network costs: multiplications, parameters, memory and time, by stage and by block."""

from visionattn.analysis.cost import Cost, measure_cost
from visionattn.analysis.macs import Macs, count_macs

__all__ = ["Cost", "Macs", "count_macs", "measure_cost"]
