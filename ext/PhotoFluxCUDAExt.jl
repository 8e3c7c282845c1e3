# What only NVIDIA's libraries can do for a fit on a GPU of theirs: convolutions by cuDNN with an algorithm that is chosen once for each
# size and gives the same bits each time, and products that are in TF32 only where they are asked for.
module PhotoFluxCUDAExt

using CUDA: CUDA, CuArray, DenseCuArray
using PhotoFlux: PhotoFlux, DeviceBuffers, relu
using PhotoFlux.MLDataDevices: CUDADevice
using cuDNN: cuDNN

const Buffers = DeviceBuffers{<:CUDADevice}

PhotoFlux.card_name(::CUDADevice) = CUDA.name(CUDA.device())

function PhotoFlux.why_not(::Val{:cuda})
    reason = try
        CUDA.functional(true) ? "cuDNN was not found" : "CUDA.jl finds none"
    catch err
        err isa InterruptException && rethrow()
        sprint(showerror, err)
    end
    return first(split(reason, '\n'))
end

# Half of what is free: a fit needs the other.
PhotoFlux.room_on(::CUDADevice) = CUDA.free_memory() ÷ 2

function PhotoFlux.tidy_up(::CUDADevice)
    GC.gc()
    return CUDA.reclaim()
end

# cuBLAS. CUDA's default is Float32; the setting is a task's.
function PhotoFlux.with_precision(f, ::CUDADevice, tf32)
    mode, precision = CUDA.math_mode(), CUDA.math_precision()
    wanted = tf32 ? CUDA.FAST_MATH : CUDA.DEFAULT_MATH
    mode == wanted && (!tf32 || precision === :TensorFloat32) && return f()
    CUDA.math_mode!(wanted; precision=:TensorFloat32)
    try
        return f()
    finally
        CUDA.math_mode!(mode; precision)
    end
end

# What a convolution may work in, in bytes: an eighth of what is free, and no more than 4 GiB.
workspace_limit() = min(2^32, CUDA.free_memory() ÷ 8)

# The descriptors of a convolution; without TF32 cuDNN multiplies and adds in Float32, which its own default does not say.
function descriptors(x, layer, y, tf32)
    pad, stride = Cint[layer.pad[3], layer.pad[1]], Cint[reverse(layer.stride)...]
    math = tf32 ? cuDNN.CUDNN_DEFAULT_MATH : cuDNN.CUDNN_FMA_MATH
    convolution = cuDNN.cudnnConvolutionDescriptor(pad, stride, Cint[1, 1], cuDNN.CUDNN_CROSS_CORRELATION, cuDNN.CUDNN_DATA_FLOAT, math,
        cuDNN.CUDNN_DEFAULT_REORDER, Cint(1))
    return convolution, cuDNN.cudnnTensorDescriptor(x), cuDNN.cudnnFilterDescriptor(layer.weight), cuDNN.cudnnTensorDescriptor(y)
end

# cuDNN pads both sides alike; another padding is NNlib's business.
suits(layer) = layer.pad[1] == layer.pad[2] && layer.pad[3] == layer.pad[4]

# By direction, sizes and precision: the algorithm and its workspace in bytes.
const CHOSEN = Dict{Any,Tuple{Any,Int}}()
const CHOSEN_LOCK = ReentrantLock()

# find(count, found, workspace) fills `found`, fastest first. Taken is the fastest that gives the same bits each time.
function chosen(find, T, key)
    return @lock CHOSEN_LOCK get!(CHOSEN, (CUDA.device(), key...)) do
        found, count = Vector{T}(undef, 16), Cint[0]
        workspace = CuArray{UInt8}(undef, workspace_limit())
        find(length(found), count, found, workspace)
        usable = filter(p -> p.status == cuDNN.CUDNN_STATUS_SUCCESS && p.memory <= length(workspace), found[1:count[1]])
        repeatable = filter(p -> p.determinism == cuDNN.CUDNN_DETERMINISTIC, usable)
        isempty(repeatable) && error("cuDNN has no algorithm for a convolution of the sizes $key.")
        CUDA.unsafe_free!(workspace)
        best = argmin(p -> p.time, repeatable)
        (best.algo, Int(best.memory))
    end
end

one_and_zero() = (Ref(1.0f0), Ref(0.0f0))

# One for all convolutions of a step; one that is made for each call is left to the collector, and fills the card before that runs.
workspace_of(buffers, bytes) = PhotoFlux.byte_buffer(buffers, :cudnn, :workspace, max(bytes, 1))

function PhotoFlux.convolution!(y::DenseCuArray{Float32,4}, x, layer, buffers::Buffers)
    suits(layer) || return invoke(PhotoFlux.convolution!, NTuple{4,Any}, y, x, layer, buffers)
    convolution, xs, ws, ys = descriptors(x, layer, y, buffers.tf32)
    algorithm, bytes = forward_algorithm(x, layer, y, buffers, convolution, xs, ws, ys)
    α, β = one_and_zero()
    workspace = workspace_of(buffers, bytes)
    cuDNN.cudnnConvolutionForward(cuDNN.handle(), α, xs, x, ws, layer.weight, convolution, algorithm, workspace, sizeof(workspace), β, ys, y)
    return y
end

function forward_algorithm(x, layer, y, buffers, convolution, xs, ws, ys)
    key = (:forward, size(x), size(layer.weight), size(y), buffers.tf32)
    return chosen(cuDNN.cudnnConvolutionFwdAlgoPerf_t, key) do n, count, found, workspace
        cuDNN.cudnnFindConvolutionForwardAlgorithmEx(cuDNN.handle(), xs, x, ws, layer.weight, convolution, ys, y, n, count, found,
            workspace, sizeof(workspace))
    end
end

function PhotoFlux.filter_gradient!(dw::DenseCuArray{Float32,4}, x, dy, layer, buffers::Buffers)
    suits(layer) || return invoke(PhotoFlux.filter_gradient!, NTuple{5,Any}, dw, x, dy, layer, buffers)
    convolution, xs, ws, ys = descriptors(x, layer, dy, buffers.tf32)
    key = (:filter, size(x), size(dw), size(dy), buffers.tf32)
    algorithm, bytes = chosen(cuDNN.cudnnConvolutionBwdFilterAlgoPerf_t, key) do n, count, found, workspace
        cuDNN.cudnnFindConvolutionBackwardFilterAlgorithmEx(cuDNN.handle(), xs, x, ys, dy, convolution, ws, dw, n, count, found,
            workspace, sizeof(workspace))
    end
    α, β = one_and_zero()
    workspace = workspace_of(buffers, bytes)
    cuDNN.cudnnConvolutionBackwardFilter(cuDNN.handle(), α, xs, x, ys, dy, convolution, algorithm, workspace, sizeof(workspace), β, ws, dw)
    return dw
end

function PhotoFlux.data_gradient!(dx::DenseCuArray{Float32,4}, dy, layer, buffers::Buffers)
    suits(layer) || return invoke(PhotoFlux.data_gradient!, NTuple{4,Any}, dx, dy, layer, buffers)
    convolution, xs, ws, ys = descriptors(dx, layer, dy, buffers.tf32)
    key = (:data, size(dx), size(layer.weight), size(dy), buffers.tf32)
    algorithm, bytes = chosen(cuDNN.cudnnConvolutionBwdDataAlgoPerf_t, key) do n, count, found, workspace
        cuDNN.cudnnFindConvolutionBackwardDataAlgorithmEx(cuDNN.handle(), ws, layer.weight, ys, dy, convolution, xs, dx, n, count, found,
            workspace, sizeof(workspace))
    end
    α, β = one_and_zero()
    workspace = workspace_of(buffers, bytes)
    cuDNN.cudnnConvolutionBackwardData(cuDNN.handle(), α, ws, layer.weight, ys, dy, convolution, algorithm, workspace, sizeof(workspace), β, xs, dx)
    return dx
end

end
