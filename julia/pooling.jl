"""
    maxpool2(x)

Return the largest of each 2×2 window of an image, stride 2; an odd last row or column is left out, as in Keras.

The gradient goes to the first largest element of a window, and to it alone. NNlib's `maxpool` gives it to the first that is
*approximately* the largest (`≈` in `pooling_direct.jl`), which is another element wherever two differ by less than a
relative 3e-4; Keras' gradient and the true one are this one.

# Arguments
- `x`: `W×H×C×N`.

# Returns
- an array `W÷2 × H÷2 × C × N`

# Examples
```jldoctest
julia> using PhotoFlux: maxpool2

julia> maxpool2(reshape(Float32[1, 5, 2, 3, 4, 0], 3, 2, 1, 1))
1×1×1×1 Array{Float32, 4}:
[:, :, 1, 1] =
 5.0
```
"""
maxpool2(x::AbstractArray{<:AbstractFloat,4}) = first(pooled(x))

function ChainRulesCore.rrule(::typeof(maxpool2), x::AbstractArray{<:AbstractFloat,4})
    y, chosen = pooled(x)
    maxpool2_pullback(Δ) = (ChainRulesCore.NoTangent(), unpooled(x, ChainRulesCore.unthunk(Δ), chosen))
    return y, maxpool2_pullback
end

# The output, and which element of its window each is; and the gradient of the input.
pooled(x::Array{T,4}) where {T} = pool!(Array{T}(undef, pooled_size(x)), Array{UInt8}(undef, pooled_size(x)), x)
unpooled(x::AbstractArray{T}, dy, chosen) where {T} = unpool!(Array{T}(undef, size(x)), dy, chosen)

# Of a view and the like; arrays on a device have kernels of their own.
pooled(x::AbstractArray{T,4}) where {T} = pooled(convert(Array{T,4}, x))

"""
    ExactPool(layer)

A layer of Flux that takes the largest number of each window, with the gradient of [`maxpool2`](@ref): it goes to the first largest.

# Arguments
- `layer`: a `MaxPool`, `AdaptiveMaxPool` or `GlobalMaxPool`.
"""
struct ExactPool{L}
    layer::L
end

(pool::ExactPool)(x) = largest_in_windows(x, windows_of(pool.layer, x))
Base.show(io::IO, pool::ExactPool) = print(io, pool.layer)

windows_of(layer::Flux.MaxPool, x) = NNlib.PoolDims(x, layer.k; padding=layer.pad, stride=layer.stride)
windows_of(::Flux.GlobalMaxPool, x) = NNlib.PoolDims(x, size(x)[1:2])

function windows_of(layer::Flux.AdaptiveMaxPool, x)
    stride = size(x)[1:2] .÷ layer.out
    return NNlib.PoolDims(x, size(x)[1:2] .- (layer.out .- 1) .* stride; stride)
end

largest_in_windows(x, windows) = NNlib.maxpool(x, windows)

ChainRulesCore.@non_differentiable windows_of(::Any, ::Any)

function ChainRulesCore.rrule(::typeof(largest_in_windows), x, windows)
    y = largest_in_windows(x, windows)
    largest_pullback(Δ) = (ChainRulesCore.NoTangent(), window_gradient(x, y, ChainRulesCore.unthunk(Δ), windows), ChainRulesCore.NoTangent())
    return y, largest_pullback
end

# A device's library goes to one largest element; NNlib on a CPU would take one that is near it.
window_gradient(x, y, dy, windows) = NNlib.∇maxpool(dy, y, x, windows)

function window_gradient(x::Array{T,4}, y, dy, windows) where {T}
    dx, (width, height) = zeros(T, size(x)), NNlib.kernel_size(windows)
    (left, _, top, _), (across, down) = NNlib.padding(windows), NNlib.stride(windows)
    foreach_job(size(x, 3) * size(x, 4)) do job, _
        c, n = mod1(job, size(x, 3)), cld(job, size(x, 3))
        for j in axes(y, 2), i in axes(y, 1)
            u₀, v₀ = (i - 1) * across - left, (j - 1) * down - top
            us, vs = max(u₀ + 1, 1):min(u₀ + width, size(x, 1)), max(v₀ + 1, 1):min(v₀ + height, size(x, 2))
            u, v = first(us), first(vs)
            @inbounds for q in vs, p in us
                x[p, q, c, n] > x[u, v, c, n] && ((u, v) = (p, q))
            end
            @inbounds dx[u, v, c, n] += dy[i, j, c, n]
        end
    end
    return dx
end
