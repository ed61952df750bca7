def report(kernels, uses):
    pass
