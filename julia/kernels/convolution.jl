# Convolution of 3×3 kernels with `same` zero padding, the direct way. Where the channels are whole vectors, winograd.jl takes
# fewer multiplications. An image's rows are copied into a tile with zeros around them; then a kernel reads vectors of
# neighbouring pixels at every offset of the window and keeps a block of sums in registers: no matrix is unrolled. A tile's rows
# lie `pitch` apart, each followed by zeros, which are the left edge of the next.
const CHANNELS = MANY_REGISTERS ? 8 : 4    # output channels of a block of sums
const SPAN = 3                             # vectors of pixels of a block of sums
const TILE = 8192                          # Float32 of `CHANNELS` planes of a tile: they stay in the first-level cache

row_pitch(width) = round_up(width, LANES) + LANES
tile_rows(width, height) = clamp(TILE ÷ (CHANNELS * row_pitch(width)), 1, height)
tile_length(width, rows, channels) = LANES + row_pitch(width) * (rows + 2) * channels + LANES * SPAN

# Planes of channels in memory: pixel `i` of row `j` of channel `c`, counted from 0, lies at start + i + j·pitch + c·plane.
struct Planes
    start::Ptr{Float32}
    pitch::Int
    plane::Int
    channels::Int
end

@inline address(p::Planes, pixel, row, channel) = at(p.start, pixel + row * p.pitch + channel * p.plane)
@inline shifted(p::Planes, pixel, row, channel) = Planes(address(p, pixel, row, channel), p.pitch, p.plane, p.channels - channel)

# The planes of an image of an array of images.
image_of(array, image) = Planes(
    pointer(array) + 4 * image * stride(array, 4), stride(array, 2), stride(array, 3), size(array, 3))

# The planes of a tile of so many rows; its rows 1 to `rows` are the image's, 0 and rows + 1 the neighbours or zeros.
tile_of(p, width, rows, channels) = Planes(at(p, LANES), row_pitch(width), row_pitch(width) * (rows + 2), channels)

# Fills a tile with rows first-1 to first+rows of every channel: row!(to, channel, row) writes those that are in the image.
function fill_tile!(row!::F, tile::Planes, width, height, first, rows) where {F}
    to = tile.start
    clear!(at(to, -LANES), LANES)
    for channel in 0:(tile.channels - 1), row in (first - 1):(first + rows)
        if 0 <= row < height
            row!(to, channel, row)
            clear!(at(to, width), tile.pitch - width)
        else
            clear!(to, tile.pitch)
        end
        to = at(to, tile.pitch)
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

# The weights in the order in which a block reads them; channels past the last are 0.
struct PackedKernel
    weights::Array{Float32,5}
    bias::Vector{Float32}
end

function PackedKernel(weight::AbstractArray{Float32,4}, bias)
    inputs, outputs = size(weight, 3), size(weight, 4)
    packed = zeros(Float32, CHANNELS, 3, 3, inputs, cld(outputs, CHANNELS))
    for o in 1:outputs
        b, c = divrem(o - 1, CHANNELS) .+ 1
        packed[c, :, :, :, b] .= view(weight, :, :, :, o)
    end
    return PackedKernel(packed, copyto!(zeros(Float32, round_up(outputs, CHANNELS)), bias))
end

# The data gradient is the correlation of dy with the flipped kernel, inputs and outputs exchanged.
flip_kernel(weight) = permutedims(reverse(weight; dims=(1, 2)), (1, 2, 4, 3))

# The sums of R vectors of pixels of one row and of C channels: `x` is the tile from the row above on, `w` the packed weights;
# writes the first `pixels` of a row of `y`, and no more channels than it has.
@generated function correlate_block!(
    y::Planes, pixels::Int, x::Planes, w::Ptr{Float32}, bias::Ptr{Float32}, relu::Bool, ::Val{R}, ::Val{C},
) where {R,C}
    acc(r, c) = Symbol(:acc, r, :_, c)
    start = [:($(acc(r, c)) = FloatVec(unsafe_load(bias, $c))) for c in 1:C for r in 1:R]
    loads = [:($(Symbol(:x, r)) = load_vec(at(q, $(LANES * (r - 1))))) for r in 1:R]
    sums = [quote
        s = FloatVec(unsafe_load(w, $c))
        $([:($(acc(r, c)) = muladd($(Symbol(:x, r)), s, $(acc(r, c)))) for r in 1:R]...)
    end for c in 1:C]
    stores = [quote
        if $c <= y.channels
            $([quote
                v = relu ? positive($(acc(r, c))) : $(acc(r, c))
                store_vec(address(y, $(LANES * (r - 1)), 0, $(c - 1)), v, pixels - $(LANES * (r - 1)))
            end for r in 1:R]...)
        end
    end for c in 1:C]
    return quote
        $(start...)
        for input in 0:(x.channels - 1), ky in 0:2
            q = address(x, -1, ky, input)
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

# All of a tile's rows, into `y` from its first row on.
function correlate_tile!(y::Planes, width, tile::Planes, rows, kernel::PackedKernel, relu)
    for row in 0:(rows - 1), channel in 0:CHANNELS:(y.channels - 1)
        w, bias = at(pointer(kernel.weights), 9 * tile.channels * channel), at(pointer(kernel.bias), channel)
        for pixel in 0:(SPAN * LANES):(width - 1)
            x, to, left = shifted(tile, pixel, row, 0), shifted(y, pixel, row, channel), width - pixel
            if left > 2LANES
                correlate_block!(to, left, x, w, bias, relu, Val(3), Val(CHANNELS))
            elseif left > LANES
                correlate_block!(to, left, x, w, bias, relu, Val(2), Val(CHANNELS))
            else
                correlate_block!(to, left, x, w, bias, relu, Val(1), Val(CHANNELS))
            end
        end
    end
end

# For three offsets along the width and C output channels: sums over a tile of x·dy, a vector of partial sums each, added to
# `sums`. The zeros after each row of dy make what lies behind it not count. Channels past dy's last are summed too, whatever
# memory has there, and left out by `reduce_filter!`.
@generated function filter_block!(sums::Ptr{Float32}, x::Ptr{Float32}, dy::Planes, rows::Int, vectors::Int, ::Val{C}) where {C}
    acc(k, c) = Symbol(:acc, k, :_, c)
    sum_(k, c) = :(at(sums, $(LANES * (3 * (c - 1) + k - 1))))
    return quote
        $([:($(acc(k, c)) = load_vec($(sum_(k, c)))) for k in 1:3 for c in 1:C]...)
        for row in 0:(rows - 1)
            q, d = at(x, row * dy.pitch), address(dy, 0, row, 0)
            for _ in 1:vectors
                $([:($(Symbol(:x, k)) = load_vec(at(q, $(k - 2)))) for k in 1:3]...)
                $([quote
                    v = load_vec(at(d, $(c - 1) * dy.plane))
                    $([:($(acc(k, c)) = muladd($(Symbol(:x, k)), v, $(acc(k, c)))) for k in 1:3]...)
                end for c in 1:C]...)
                q, d = at(q, LANES), at(d, LANES)
            end
        end
        $([:(store_vec($(sum_(k, c)), $(acc(k, c)))) for k in 1:3 for c in 1:C]...)
        return nothing
    end
end

# Adds a tile's share of the filter gradient to `sums` and of the bias gradient to `db`.
function filter_tile!(sums, db, x::Planes, dy::Planes, width, rows)
    for channel in 0:CHANNELS:(dy.channels - 1)
        for input in 0:(x.channels - 1), ky in 0:2
            vectors = round_up(width, LANES) ÷ LANES
            filter_block!(sums, address(x, 0, ky, input), shifted(dy, 0, 1, channel), rows, vectors, Val(CHANNELS))
            sums = at(sums, LANES * 3 * CHANNELS)
        end
        for c in channel:(min(channel + CHANNELS, dy.channels) - 1)
            total, start = 0.0f0, address(dy, 0, 1, c)
            @simd for i in 1:(dy.pitch * rows)
                total += unsafe_load(start, i)
            end
            unsafe_store!(db, unsafe_load(db, c + 1) + total, c + 1)
        end
    end
end

# The filter gradient of partial sums, which are in the order of `filter_tile!`.
function reduce_filter!(dw::Ptr{Float32}, sums, inputs, outputs)
    for channel in 0:CHANNELS:(outputs - 1), input in 0:(inputs - 1), ky in 0:2, c in channel:(channel + CHANNELS - 1), kx in 0:2
        c < outputs && unsafe_store!(at(dw, kx + 3ky + 9input + 9inputs * c), sum_lanes(sums))
        sums = at(sums, LANES)
    end
end

"""
    correlate!(y, x, weight, bias, relu, buffers, name, chosen = nothing)

Write the output of a convolution: bias and, if `relu`, ReLU included.

# Arguments
- `y`: `W×H×outputs×N`, or with `chosen`, which has its size, what max-pooling makes of that; it is then made tile by tile.
- `x`: `W×H×inputs×N`; `weight`: `3×3×inputs×outputs`; `bias`: `outputs`.
- `buffers`, `name`: the layer's workspaces.
"""
function correlate!(y::Array{Float32,4}, x, weight, bias, relu::Bool, buffers::Buffers, name::Symbol, chosen=nothing)
    width, height, inputs, images = size(x)
    outputs, pooled = size(weight, 4), chosen !== nothing
    tall, last_row = tile_rows(width, height), pooled ? height - height % 2 : height
    rows = pooled ? round_up(tall, 2) : tall
    tiles = cld(last_row, rows)
    jobs = tiles * images
    kernel = PackedKernel(weight, bias)
    tile_size = tile_length(width, rows, inputs)
    size_ = tile_size + (pooled ? width * rows * outputs : 0)
    scratch = workspace(buffers, name, :tiles, size_ * max_workers(jobs))
    GC.@preserve scratch y x kernel chosen foreach_job(jobs) do job, worker
        image, number = divrem(job - 1, tiles)
        first = number * rows
        n = min(rows, last_row - first)
        p = at(pointer(scratch), (worker - 1) * size_)
        tile, source = tile_of(p, width, n, inputs), image_of(x, image)
        fill_tile!(tile, width, height, first, n) do to, channel, row
            copy_row!(to, address(source, 0, row, channel), width)
        end
        if chosen !== nothing
            made = Planes(at(p, tile_size), width, width * n, outputs)
            correlate_tile!(made, width, tile, n, kernel, false)
            for channel in 0:(outputs - 1)
                offset = ((image * outputs + channel) * (height ÷ 2) + first ÷ 2) * (width ÷ 2)
                pool_plane!(at(pointer(y), offset), pointer(chosen) + offset, address(made, 0, 0, channel), width, n ÷ 2, relu)
            end
        else
            correlate_tile!(shifted(image_of(y, image), 0, first, 0), width, tile, n, kernel, relu)
        end
    end
    return y
end

"""
    correlate_gradients!(dx, dw, db, x, weight, y, dy, relu, buffers, name, chosen = nothing)

Write the gradients of [`correlate!`](@ref)'s input, weight and bias.

# Arguments
- `dx`: nothing where nobody asks for it.
- `dy`: counts where `y` is above 0 if there was a ReLU; with `chosen` it is the gradient of what max-pooling made.
"""
function correlate_gradients!(
    dx, dw::Array{Float32,4}, db::Vector{Float32}, x, weight, y, dy, relu::Bool, buffers::Buffers,
    name::Symbol, chosen=nothing,
)
    width, height, inputs, images = size(x)
    outputs = size(weight, 4)
    rows = tile_rows(width, height)
    tiles, padded = cld(height, rows), round_up(outputs, CHANNELS)
    kernel = dx === nothing ? nothing : PackedKernel(flip_kernel(weight), Float32[])
    groups = groups_of(width * height * images, PIXELS_OF_GROUP, tiles * images)
    x_size, dy_size, sums_size = tile_length(width, rows, inputs), tile_length(width, rows, padded), LANES * 9 * inputs * padded
    size_ = x_size + dy_size + sums_size
    scratch = workspace(buffers, name, :tiles, size_ * max_workers(groups))
    dws = workspace(buffers, name, :dws, length(dw) * groups)
    dbs = fill!(workspace(buffers, name, :dbs, outputs * groups), 0.0f0)
    GC.@preserve scratch dws dbs kernel dx x y dy chosen foreach_job(groups) do group, worker
        px = at(pointer(scratch), (worker - 1) * size_)
        pd, sums = at(px, x_size), at(px, x_size + dy_size)
        clear!(sums, sums_size)
        for unit in units_of(group, groups, tiles * images)
            image, number = divrem(unit, tiles)
            first = number * rows
            n = min(rows, height - first)
            x_tile, dy_tile, source = tile_of(px, width, n, inputs), tile_of(pd, width, n, outputs), image_of(x, image)
            fill_tile!(x_tile, width, height, first, n) do to, channel, row
                copy_row!(to, address(source, 0, row, channel), width)
            end
            fill_tile!(dy_tile, width, height, first, n) do to, channel, row
                if chosen !== nothing
                    plane = (image * outputs + channel) * (height ÷ 2) * (width ÷ 2)
                    unpool_row!(to, at(pointer(dy), plane), pointer(chosen) + plane, width, height, row)
                elseif relu
                    copy_row!(to, address(image_of(dy, image), 0, row, channel), address(image_of(y, image), 0, row, channel), width)
                else
                    copy_row!(to, address(image_of(dy, image), 0, row, channel), width)
                end
            end
            filter_tile!(sums, at(pointer(dbs), (group - 1) * outputs), x_tile, dy_tile, width, n)
            if dx !== nothing
                correlate_tile!(shifted(image_of(dx, image), 0, first, 0), width, dy_tile, n, kernel, false)
            end
        end
        reduce_filter!(at(pointer(dws), (group - 1) * length(dw)), sums, inputs, outputs)
    end
    sum_groups!(dw, length(dw), dws, groups)
    sum_groups!(db, outputs, dbs, groups)
    return nothing
end
