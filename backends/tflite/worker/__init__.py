"""The process in which models are converted and first run, apart from the caller's.

Converters abort, hang and run out of memory; here that ends a process that nobody minds. The package imports nothing of
xlapass nor of JAX, so that any interpreter that has the converter can run it: that of an environment with TensorFlow,
say. See `serve` for what it is sent.
"""
