"""The published import names of the web platform; what they name lives in ``ipfs_accelerate_py.web``."""
