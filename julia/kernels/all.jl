# The kernels for vectors of `LANES` lanes. The module that includes this file defines `LANES`: Kernels does for this processor,
# the tests do for 4, 8 and 16.
using LinearAlgebra: BLAS
using SIMD: Vec, shufflevector, vifelse, vload, vstore

export LANES
export foreach_job, foreach_range, on_all_threads, with_one_blas_thread, with_thread_team
export Buffers, buffer, byte_buffer, gradient_buffer, with_buffers
export apply_block!, apply_gradient!, upcoming_reads
export correlate!, correlate_gradients!, suits_winograd, whole_vectors, winograd!, winograd_gradients!
export dense_product!, dense_gradients!
export CHUNK, Bottleneck, BottleneckNetwork, PackedDepthwise, PackedPointwise, Stem, Window
export bottleneck_activations, bottleneck_features!, bottleneck_trunk!, has_depthwise_kernel, out_size
export depthwise!, depthwise_gradients!, mean_gradients!, mix_channels!, mix_gradients!, pixel_means!, unclamp!
export pool!, pooled_size, unpool!

include("vectors.jl")
include("threads.jl")
include("buffers.jl")
include("updates.jl")
include("products.jl")
include("pooling.jl")
include("convolution.jl")
include("winograd.jl")
include("dense.jl")
include("pointwise.jl")
include("depthwise.jl")
include("bottleneck.jl")
include("channels.jl")
