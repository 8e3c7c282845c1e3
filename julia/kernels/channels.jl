# Convolutions of a network's last blocks and their gradients: 1×1, and depthwise of any size and stride, of arrays C×W×H×N, whose
# channels lie side by side. There the images are few pixels wide and have hundreds of channels, so the 1×1 ones, nearly all of
# the work, are matrix products of BLAS over the pixels of all images, and the depthwise ones go along the channels.
#
# Each job sums in an order of its own, whatever the number of threads.
const PIXELS_OF_JOB = 256     # of a product's outputs
const CHANNELS_OF_JOB = 64    # of a sum over all pixels, and of a depthwise convolution

part_of_job(job, size, n) = (1 + (job - 1) * size):min(job * size, n)

@inline relu6_of(v::Float32) = ifelse(v < 0.0f0, 0.0f0, ifelse(v > 6.0f0, 6.0f0, v))    # hides no NaN

"""
    mix_channels!(y, weight, bias, x, clamp)

Write `weight' * x .+ bias`, a 1×1 convolution, with ReLU6 where `clamp` is true.

# Arguments
- `y`: outputs × pixels; `weight`: inputs × outputs; `x`: inputs × pixels.
"""
function mix_channels!(y::Matrix{Float32}, weight::Matrix{Float32}, bias::Vector{Float32}, x::Matrix{Float32}, clamp::Bool)
    pixels = size(x, 2)
    foreach_job(cld(pixels, PIXELS_OF_JOB)) do job, _
        part = part_of_job(job, PIXELS_OF_JOB, pixels)
        BLAS.gemm!('T', 'N', 1.0f0, weight, view(x, :, part), 0.0f0, view(y, :, part))
        @inbounds for pixel in part
            @simd ivdep for c in eachindex(bias)
                v = y[c, pixel] + bias[c]
                y[c, pixel] = clamp ? relu6_of(v) : v
            end
        end
    end
    return y
end

"""
    mix_gradients!(dx, dw, weight, x, dy)

Write the gradients of `weight' * x`; `dx` is nothing where nobody asks for it.
"""
function mix_gradients!(dx, dw::Matrix{Float32}, weight::Matrix{Float32}, x::Matrix{Float32}, dy::Matrix{Float32})
    outputs, pixels = size(dy)
    foreach_job(cld(outputs, CHANNELS_OF_JOB)) do job, _
        part = part_of_job(job, CHANNELS_OF_JOB, outputs)
        BLAS.gemm!('N', 'T', 1.0f0, x, view(dy, part, :), 0.0f0, view(dw, :, part))
    end
    dx === nothing || foreach_job(cld(pixels, PIXELS_OF_JOB)) do job, _
        part = part_of_job(job, PIXELS_OF_JOB, pixels)
        BLAS.gemm!('N', 'N', 1.0f0, weight, view(dy, :, part), 0.0f0, view(dx, :, part))
    end
    return nothing
end

"""
    unclamp!(δ, db, y, dy, clamp)

Write into `δ` the gradient before ReLU6, which let through what is between 0 and 6 in `y`, and into `db` its sum over the pixels:
the bias's gradient. Without `clamp` `δ` is a copy. All matrices are channels × pixels.
"""
function unclamp!(δ::Matrix{Float32}, db::Vector{Float32}, y::Matrix{Float32}, dy::Matrix{Float32}, clamp::Bool)
    foreach_job(cld(length(db), CHANNELS_OF_JOB)) do job, _
        part = part_of_job(job, CHANNELS_OF_JOB, length(db))
        fill!(view(db, part), 0.0f0)
        @inbounds for pixel in axes(y, 2)
            @simd ivdep for c in part
                v = y[c, pixel]
                g = ifelse(!clamp | ((v > 0.0f0) & (v < 6.0f0)), dy[c, pixel], 0.0f0)
                δ[c, pixel] = g
                db[c] += g
            end
        end
    end
    return δ
end

# visit(tap, input pixel, output pixel) for every pair of pixels of an image that a tap of the kernel joins; all count from 0.
@inline function each_tap(visit::F, w::Window) where {F}
    for row in 0:(w.out_height - 1), column in 0:(w.out_width - 1), j in 0:(w.kernel - 1)
        from = row * w.stride - w.top + j
        0 <= from < w.height || continue
        for i in 0:(w.kernel - 1)
            at_ = column * w.stride - w.left + i
            0 <= at_ < w.width && visit(j * w.kernel + i, from * w.width + at_, row * w.out_width + column)
        end
    end
end

# Calls work(channels, image) for shares of the channels of every image, as jobs.
function each_share(work::F, channels, images) where {F}
    shares = cld(channels, CHANNELS_OF_JOB)
    foreach_job(shares * images) do job, _
        image, share = divrem(job - 1, shares)
        work(part_of_job(share + 1, CHANNELS_OF_JOB, channels), image + 1)
    end
end

"""
    depthwise!(y, weight, bias, x, window)

Write the depthwise convolution of `x` with ReLU6.

# Arguments
- `y`, `x`: channels × pixels × images; `weight`: channels × taps, along the width first.
- `window::Window`: the geometry.
"""
function depthwise!(y::Array{Float32,3}, weight::Matrix{Float32}, bias::Vector{Float32}, x::Array{Float32,3}, window::Window)
    each_share(size(y, 1), size(y, 3)) do channels, image
        @inbounds for pixel in axes(y, 2)
            @simd ivdep for c in channels
                y[c, pixel, image] = bias[c]
            end
        end
        each_tap(window) do tap, from, to
            @inbounds @simd ivdep for c in channels
                y[c, to + 1, image] = muladd(weight[c, tap + 1], x[c, from + 1, image], y[c, to + 1, image])
            end
        end
        @inbounds for pixel in axes(y, 2)
            @simd ivdep for c in channels
                y[c, pixel, image] = relu6_of(y[c, pixel, image])
            end
        end
    end
    return y
end

"""
    depthwise_gradients!(dx, dw, weight, x, dy, window)

Write the gradients of a depthwise convolution; `dx` is nothing where nobody asks for it.
"""
function depthwise_gradients!(dx, dw::Matrix{Float32}, weight::Matrix{Float32}, x::Array{Float32,3}, dy::Array{Float32,3}, window::Window)
    channels_, images = size(dy, 1), size(dy, 3)
    each_share(channels_, 1) do channels, _
        fill!(view(dw, channels, :), 0.0f0)
        for image in 1:images
            each_tap(window) do tap, from, to
                @inbounds @simd ivdep for c in channels
                    dw[c, tap + 1] = muladd(x[c, from + 1, image], dy[c, to + 1, image], dw[c, tap + 1])
                end
            end
        end
    end
    dx === nothing || each_share(channels_, images) do channels, image
        fill!(view(dx, channels, :, image), 0.0f0)
        each_tap(window) do tap, from, to
            @inbounds @simd ivdep for c in channels
                dx[c, from + 1, image] = muladd(weight[c, tap + 1], dy[c, to + 1, image], dx[c, from + 1, image])
            end
        end
    end
    return nothing
end

"""
    pixel_means!(y, x)

Write into `y`, channels × images, the means of `x`, channels × pixels × images, over the pixels.
"""
function pixel_means!(y::Matrix{Float32}, x::Array{Float32,3})
    foreach_job(size(x, 3)) do image, _
        @inbounds for pixel in axes(x, 2)
            @simd ivdep for c in axes(x, 1)
                y[c, image] = (pixel == 1 ? 0.0f0 : y[c, image]) + x[c, pixel, image]
            end
        end
        @inbounds @simd ivdep for c in axes(x, 1)
            y[c, image] /= size(x, 2)
        end
    end
    return y
end

"""
    mean_gradients!(dx, dy)

Write the gradient of the input of [`pixel_means!`](@ref).
"""
function mean_gradients!(dx::Array{Float32,3}, dy::Matrix{Float32})
    foreach_job(size(dx, 3)) do image, _
        @inbounds for pixel in axes(dx, 2)
            @simd ivdep for c in axes(dx, 1)
                dx[c, pixel, image] = dy[c, image] / size(dx, 2)
            end
        end
    end
    return dx
end
