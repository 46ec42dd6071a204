"""The console command `visionattn`."""
