"""int8 and int4: arithmetic, calibration, placement of quantizers, and the pass `quantize`."""
