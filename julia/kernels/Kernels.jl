"""
    Kernels

The numerical kernels of a training step on a CPU, for arrays of `Float32`, and the threads and buffers that they share.

The module uses nothing else of PhotoFlux; layers, penalties and optimisers stand outside and call it.
"""
module Kernels

# Lanes of a vector, as wide as the processor's. Fixed when the package is precompiled, which Julia does anew for another kind
# of processor.
const LANES = if Sys.ARCH === :x86_64
    Base.BinaryPlatforms.CPUID.test_cpu_feature(Base.BinaryPlatforms.CPUID.JL_X86_avx512f) ? 16 : 8
else
    4
end

include("all.jl")

end
