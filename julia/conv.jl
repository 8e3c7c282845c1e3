# Convolution with `same` zero padding on a CPU: the layer, and the direct way. Where the channels are whole vectors,
# winograd.jl takes fewer multiplications. An image's rows are copied into a tile with zeros around them; then a
# kernel reads vectors of neighbouring pixels at every offset of the window and keeps a block of sums in registers:
# no matrix is unrolled. A tile's rows lie `pitch` apart, each followed by zeros, which are the left edge of the next.
const CHANNELS = MANY_REGISTERS ? 8 : 4    # output channels of a block of sums
const SPAN = 3                             # vectors of pixels of a block of sums
const TILE = 8192                          # Float32 of `CHANNELS` planes of a tile: they stay in the first cache
const GROUPS = 16                          # jobs of a gradient at most; each sums the filter gradient of its images

row_pitch(width) = blocks(width, LANES) + LANES
tile_rows(width, height) = clamp(TILE ÷ (CHANNELS * row_pitch(width)), 1, height)
tile_length(width, rows, channels) = LANES + row_pitch(width) * (rows + 2) * channels + LANES * SPAN

# Rows from-1 to from+rows of every channel of an image: row!(to, channel, row) writes those that are in the image.
function fill_tile!(row!::F, tile::Ptr{Float32}, width, height, channels, from, rows) where {F}
    pitch = row_pitch(width)
    clear!(tile, LANES)
    to = at(tile, LANES)
    for channel in 0:(channels - 1), row in (from - 1):(from + rows)
        if 1 <= row <= height
            row!(to, channel, row - 1)
            clear!(at(to, width), pitch - width)
        else
            clear!(to, pitch)
        end
        to = at(to, pitch)
    end
end

function copy_row!(to::Ptr{Float32}, from::Ptr{Float32}, width)
    @simd ivdep for i in 1:width
        unsafe_store!(to, unsafe_load(from, i), i)
    end
end

# Of a gradient `dy`, what is above 0 in `y`.
function copy_row!(to::Ptr{Float32}, dy::Ptr{Float32}, y::Ptr{Float32}, width)
    @simd ivdep for i in 1:width
        unsafe_store!(to, ifelse(unsafe_load(y, i) > 0, unsafe_load(dy, i), 0.0f0), i)
    end
end

# y[pixel, channel] for R vectors of pixels of one row and C channels: `x` is the tile at the pixel above, `w` the packed
# weights; writes the first `pixels` of a row and the first `channels`.
@generated function correlate_block!(
    y::Ptr{Float32}, y_plane::Int, pixels::Int, channels::Int, x::Ptr{Float32}, pitch::Int, x_plane::Int, inputs::Int,
    w::Ptr{Float32}, bias::Ptr{Float32}, relu::Bool, ::Val{R}, ::Val{C},
) where {R,C}
    acc(r, c) = Symbol(:acc, r, :_, c)
    start = [:($(acc(r, c)) = splat(unsafe_load(bias, $c))) for c in 1:C for r in 1:R]
    loads = [:($(Symbol(:x, r)) = load_vec(at(q, $(LANES * (r - 1))))) for r in 1:R]
    sums = [quote
        s = splat(unsafe_load(w, $c))
        $([:($(acc(r, c)) = muladd_vec($(Symbol(:x, r)), s, $(acc(r, c)))) for r in 1:R]...)
    end for c in 1:C]
    stores = [quote
        if $c <= channels
            $([quote
                v = relu ? positive($(acc(r, c))) : $(acc(r, c))
                store_vec(at(y, $(c - 1) * y_plane + $(LANES * (r - 1))), v, pixels - $(LANES * (r - 1)))
            end for r in 1:R]...)
        end
    end for c in 1:C]
    return quote
        $(start...)
        for input in 0:(inputs - 1), ky in 0:2
            q = at(x, input * x_plane + ky * pitch - 1)
            for _ in 1:3
                $(loads...)
                $(sums...)
                q, w = at(q, 1), at(w, $C)
            end
        end
        $(stores...)
        return nothing
    end
end

# All of a tile's rows. `y` is the image's plane at the tile's first row.
function correlate_tile!(y, width, height, outputs, tile, rows, inputs, w, bias, relu)
    pitch, x_plane, y_plane = row_pitch(width), row_pitch(width) * (rows + 2), width * height
    block = 9 * inputs * CHANNELS
    for row in 0:(rows - 1), (b, channel) in enumerate(0:CHANNELS:(outputs - 1))
        weights, biases, n = at(w, (b - 1) * block), at(bias, channel), outputs - channel
        pixel = 0
        while pixel < width
            from = at(tile, LANES + row * pitch + pixel)
            to, left = at(y, row * width + pixel + channel * y_plane), width - pixel
            if left > 2LANES
                correlate_block!(to, y_plane, left, n, from, pitch, x_plane, inputs, weights, biases, relu, Val(3), Val(CHANNELS))
            elseif left > LANES
                correlate_block!(to, y_plane, left, n, from, pitch, x_plane, inputs, weights, biases, relu, Val(2), Val(CHANNELS))
            else
                correlate_block!(to, y_plane, left, n, from, pitch, x_plane, inputs, weights, biases, relu, Val(1), Val(CHANNELS))
            end
            pixel += SPAN * LANES
        end
    end
end

# For three offsets along the width and C output channels: sums over a tile of x·dy, a vector of partial sums each,
# added to `sums`. The zeros after each row of dy make what lies behind it not count.
@generated function filter_block!(
    sums::Ptr{Float32}, x::Ptr{Float32}, dy::Ptr{Float32}, pitch::Int, dy_plane::Int, rows::Int, vectors::Int, ::Val{C},
) where {C}
    acc(k, c) = Symbol(:acc, k, :_, c)
    place(k, c) = :(at(sums, $(LANES * (3 * (c - 1) + k - 1))))
    return quote
        $([:($(acc(k, c)) = load_vec($(place(k, c)))) for k in 1:3 for c in 1:C]...)
        for row in 0:(rows - 1)
            q, d = at(x, row * pitch), at(dy, row * pitch)
            for _ in 1:vectors
                $([:($(Symbol(:x, k)) = load_vec(at(q, $(k - 2)))) for k in 1:3]...)
                $([quote
                    v = load_vec(at(d, $(c - 1) * dy_plane))
                    $([:($(acc(k, c)) = muladd_vec($(Symbol(:x, k)), v, $(acc(k, c)))) for k in 1:3]...)
                end for c in 1:C]...)
                q, d = at(q, LANES), at(d, LANES)
            end
        end
        $([:(store_vec($(place(k, c)), $(acc(k, c)))) for k in 1:3 for c in 1:C]...)
        return nothing
    end
end

# The weights in the order in which a block reads them; channels past the last are 0.
function pack(weight::Array{Float32,4})
    inputs, outputs = size(weight, 3), size(weight, 4)
    packed = zeros(Float32, CHANNELS, 3, 3, inputs, cld(outputs, CHANNELS))
    for o in 1:outputs
        b, c = divrem(o - 1, CHANNELS) .+ 1
        packed[c, :, :, :, b] .= view(weight, :, :, :, o)
    end
    return packed
end

# The data gradient is the correlation of dy with the turned kernel, inputs and outputs exchanged.
turned(weight) = permutedims(reverse(weight; dims=(1, 2)), (1, 2, 4, 3))

# Writes the output, or with `chosen` what max-pooling makes of it, which is then made tile by tile.
function correlate!(y::Array{Float32,4}, x, weight, bias, relu::Bool, buffers::Buffers, name::Symbol, chosen=nothing)
    width, height, inputs, images = size(x)
    outputs, pooled = size(weight, 4), chosen !== nothing
    tall, last_row = tile_rows(width, height), pooled ? height - height % 2 : height
    rows = pooled ? blocks(tall, 2) : tall
    tiles = cld(last_row, rows)
    packed, biases = pack(weight), zeros(Float32, blocks(outputs, CHANNELS))
    copyto!(biases, bias)
    tile_size, output_size = tile_length(width, rows, inputs), pooled ? width * rows * outputs : 0
    scratch = buffer(buffers, name, :tiles, tile_size + output_size, Threads.nthreads())
    GC.@preserve buffers y x packed biases chosen share(tiles * images) do job, worker
        image, tile = divrem(job - 1, tiles)
        from = tile * rows + 1
        height_ = min(rows, last_row - from + 1)
        p = at(pointer(scratch), (worker - 1) * (tile_size + output_size))
        source = at(pointer(x), image * width * height * inputs)
        fill_tile!(p, width, height, inputs, from, height_) do to, channel, row
            copy_row!(to, at(source, (channel * height + row) * width), width)
        end
        if chosen !== nothing
            out = at(p, tile_size)
            correlate_tile!(out, width, height_, outputs, p, height_, inputs, pointer(packed), pointer(biases), false)
            for channel in 0:(outputs - 1)
                place = ((image * outputs + channel) * (height ÷ 2) + from ÷ 2) * (width ÷ 2)
                plane = at(out, channel * width * height_)
                pool_plane!(at(pointer(y), place), pointer(chosen) + place, plane, width, height_ ÷ 2, relu)
            end
        else
            to = at(pointer(y), image * width * height * outputs + (from - 1) * width)
            correlate_tile!(to, width, height, outputs, p, height_, inputs, pointer(packed), pointer(biases), relu)
        end
    end
    return y
end

# dy counts where `y` is above 0 if there was a ReLU; with `chosen` it is the gradient of what max-pooling made of y. `dx` is
# nothing where nobody asks for it.
function correlate_gradients!(
    dx, dw::Array{Float32,4}, db::Vector{Float32}, x, weight, y, dy, relu::Bool, buffers::Buffers,
    name::Symbol, chosen=nothing,
)
    width, height, inputs, images = size(x)
    outputs = size(weight, 4)
    rows, pitch = tile_rows(width, height), row_pitch(width)
    padded = blocks(outputs, CHANNELS)
    packed, no_bias = pack(dx === nothing ? weight : turned(weight)), zeros(Float32, blocks(inputs, CHANNELS))
    jobs = min(images, GROUPS)
    workers = min(Threads.nthreads(), jobs)
    x_size, dy_size = tile_length(width, rows, inputs), tile_length(width, rows, padded)
    sums_size = LANES * 9 * inputs * padded
    x_tiles, dy_tiles = buffer(buffers, name, :tiles, x_size, workers), buffer(buffers, name, :dy_tiles, dy_size, workers)
    fill!(dy_tiles, 0.0f0)    # the channels past the last are never written
    sums = buffer(buffers, name, :sums, sums_size, workers)
    dws, dbs = buffer(buffers, name, :dws, size(dw)..., jobs), zeros(Float32, outputs, jobs)
    GC.@preserve buffers dx x y dy chosen packed no_bias share(jobs) do job, worker
        px, pd = at(pointer(x_tiles), (worker - 1) * x_size), at(pointer(dy_tiles), (worker - 1) * dy_size)
        ps = at(pointer(sums), (worker - 1) * sums_size)
        clear!(ps, sums_size)
        first_image, last_image = (job - 1) * images ÷ jobs, job * images ÷ jobs - 1
        for image in first_image:last_image, from in 1:rows:height
            n = min(rows, height - from + 1)
            of(array, channels) = at(pointer(array), image * width * height * channels)
            fill_tile!(px, width, height, inputs, from, n) do to, channel, row
                copy_row!(to, at(of(x, inputs), (channel * height + row) * width), width)
            end
            fill_tile!(pd, width, height, outputs, from, n) do to, channel, row
                place = (channel * height + row) * width
                if chosen !== nothing
                    plane = (image * outputs + channel) * (height ÷ 2) * (width ÷ 2)
                    unpool_row!(to, at(pointer(dy), plane), pointer(chosen) + plane, width, height, row)
                elseif relu
                    copy_row!(to, at(of(dy, outputs), place), at(of(y, outputs), place), width)
                else
                    copy_row!(to, at(of(dy, outputs), place), width)
                end
            end
            filter_tile!(ps, view(dbs, :, job), px, pd, pitch, n, blocks(width, LANES) ÷ LANES, inputs, outputs)
            if dx !== nothing
                to = at(of(dx, inputs), (from - 1) * width)
                correlate_tile!(to, width, height, inputs, pd, n, outputs, pointer(packed), pointer(no_bias), false)
            end
        end
        gather_filter!(view(dws, :, :, :, :, job), ps)
    end
    sum!(reshape(dw, size(dw)..., 1), dws)
    sum!(db, dbs)
    return nothing
end

function filter_tile!(sums, db, x, dy, pitch, rows, vectors, inputs, outputs)
    plane = pitch * (rows + 2)
    for channel in 0:CHANNELS:(outputs - 1)
        d = at(dy, LANES + channel * plane + pitch)
        for input in 0:(inputs - 1), ky in 0:2
            q = at(x, LANES + input * plane + ky * pitch)
            filter_block!(sums, q, d, pitch, plane, rows, vectors, Val(CHANNELS))
            sums = at(sums, LANES * 3 * CHANNELS)
        end
        for c in channel:(min(channel + CHANNELS, outputs) - 1)
            total, start = 0.0f0, at(dy, LANES + c * plane + pitch)
            @simd for i in 1:(pitch * rows)
                total += unsafe_load(start, i)
            end
            db[c + 1] += total
        end
    end
end

function gather_filter!(dw, sums)
    _, _, inputs, outputs = size(dw)
    for channel in 0:CHANNELS:(outputs - 1), input in 1:inputs, ky in 1:3, c in 1:CHANNELS, kx in 1:3
        if channel + c <= outputs
            dw[kx, ky, input, channel + c] = sum_lanes(sums)
        end
        sums = at(sums, LANES)
    end
end

"""
    Convolution(kernel, channels, σ = identity; stride = 1, init)

A layer like Flux's `CrossCor` with `same` zero padding, with kernels of its own for a CPU.

They are used for arrays of `Float32` in the computer's memory, 3×3 kernels, stride 1 and no activation other than `relu`;
NNlib does the rest.

# Arguments
- `kernel::NTuple{2,Int}`: width and height of the kernel.
- `channels::Pair{Int,Int}`: of the input and of the output.
- `σ`: the activation.
- `stride::Int`
- `init`: makes the kernel, of size `(kernel..., channels...)`; the bias is zero.

# Examples
```jldoctest
julia> layer = PhotoFlux.Convolution((3, 3), 1 => 1; init=(size...) -> ones(Float32, size...));

julia> layer(ones(Float32, 3, 2, 1, 1))
3×2×1×1 Array{Float32, 4}:
[:, :, 1, 1] =
 4.0  4.0
 6.0  6.0
 4.0  4.0
```
"""
struct Convolution{F,A<:AbstractArray{<:Any,4},B<:AbstractVector}
    σ::F
    weight::A
    bias::B
    stride::NTuple{2,Int}
    pad::NTuple{4,Int}
end

function Convolution(kernel::NTuple{2,Int}, channels::Pair, σ=identity; stride::Int=1, init=Flux.glorot_uniform)
    weight = init(kernel..., first(channels), last(channels))
    # As Flux's SamePad.
    pad = ntuple(i -> isodd(i) ? cld(kernel[cld(i, 2)] - 1, 2) : fld(kernel[cld(i, 2)] - 1, 2), 4)
    return Convolution(σ, weight, fill!(similar(weight, last(channels)), 0), (stride, stride), pad)
end

Flux.@layer Convolution trainable=(weight, bias)

const Rectifier = Union{typeof(relu),typeof(identity)}
const Rectified = Convolution{<:Rectifier,Array{Float32,4},Vector{Float32}}

has_fast_kernel(layer::Rectified) = size(layer.weight)[1:2] == (3, 3) && layer.stride == (1, 1)
is_fast(layer, x) = false
is_fast(layer::Rectified, x::Array{Float32,4}) = has_fast_kernel(layer)

dims_of(layer, x) =
    NNlib.DenseConvDims(x, layer.weight; layer.stride, padding=layer.pad, flipkernel=true)

function (layer::Convolution)(x)
    if is_fast(layer, x)
        y = Array{Float32}(undef, size(x, 1), size(x, 2), size(layer.weight, 4), size(x, 4))
        return convolve!(y, layer, x, Buffers(), :convolution)
    end
    return layer.σ.(NNlib.conv(x, layer.weight, dims_of(layer, x)) .+ reshape(layer.bias, 1, 1, :, 1))
end

# Of the whole layer, so that Zygote looks into nothing of ours (see `total_gradient`).
function ChainRulesCore.rrule(layer::Convolution{<:Rectifier}, x::AbstractArray{<:Any,4})
    y = layer(x)
    function convolution_pullback(Δ)
        dx, dw, db = similar(x), similar(layer.weight), similar(layer.bias)
        convolution_gradients!(dx, dw, db, layer, x, y, ChainRulesCore.unthunk(Δ), Buffers(), :convolution)
        return ChainRulesCore.Tangent{typeof(layer)}(; weight=dw, bias=db), dx
    end
    return y, convolution_pullback
end

# Writes the output of a layer that `is_fast`.
function convolve!(y, layer, x, buffers, name)
    (; weight, bias, σ) = layer
    convolution = suits_winograd(size(x, 1), size(weight, 3), size(weight, 4)) ? winograd! : correlate!
    return convolution(y, x, weight, bias, σ === relu, buffers, name)
end

# Writes the gradients; `dx` is nothing where nobody asks for it.
function convolution_gradients!(dx, dw, db, layer, x, y, dy, buffers, name)
    if is_fast(layer, x)
        dy = convert(Array{Float32,4}, dy)
        suited = suits_winograd(size(x, 1), size(x, 3), size(y, 3))
        gradients! = suited ? winograd_gradients! : correlate_gradients!
        gradients!(dx, dw, db, x, layer.weight, y, dy, layer.σ === relu, buffers, name)
    else
        masked = layer.σ === relu ? dy .* (y .> 0) : dy
        NNlib.∇conv_filter!(dw, x, masked, dims_of(layer, x))
        sum!(reshape(db, 1, 1, :, 1), masked)
        dx === nothing || NNlib.∇conv_data!(dx, masked, layer.weight, dims_of(layer, x))
    end
    return nothing
end
