"""Every mechanism beside every other: time, memory and multiplications over the size of the map."""
