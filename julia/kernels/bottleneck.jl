# Networks of inverted bottlenecks (Sandler et al. 2018, "MobileNetV2"): a convolution from pixels, blocks of expansion, depthwise
# convolution and projection, and a last convolution whose outputs are averaged. Between the layers the channels of a pixel lie
# side by side, padded to whole vectors.
#
# A block's expanded image is many times its input. It is never whole in memory: a band of rows is expanded for some channels at
# a time, the depthwise convolution takes these while they are in cache, and its outputs of a band are projected from there.
const CHUNK = 48               # expanded channels at a time
const BAND_FLOATS = 2^17       # of expanded and of convolved pixels of a band: they stay in the second-level cache
const PART = 64                # pixels of a job of a matrix product

# A convolution's geometry: its input, its zeros and its output.
struct Window
    width::Int
    height::Int
    kernel::Int
    stride::Int
    left::Int
    top::Int
    out_width::Int
    out_height::Int
end

function Window((width, height), kernel, stride, (left, right, top, bottom))
    outputs(n, before, after) = (n + before + after - kernel) ÷ stride + 1
    return Window(width, height, kernel, stride, left, top, outputs(width, left, right), outputs(height, top, bottom))
end

out_size(w::Window) = (w.out_width, w.out_height)
# Pixels of a row with all that its outputs read, at least the image.
row_pixels(w::Window) = max((w.out_width - 1) * w.stride + w.kernel, w.left + w.width)
# Rows that so many rows of outputs read.
rows_read(w::Window, rows) = (rows - 1) * w.stride + w.kernel

struct Stem
    window::Window
    mean::Float32
    scale::Float32
    kernel::PackedPointwise
    rows::Int                 # of outputs of a job
    taps::Vector{Int}
    places::Vector{Int}
end

struct Bottleneck
    window::Window
    inputs::Int
    expand::Union{PackedPointwise,Nothing}
    depthwise::PackedDepthwise
    project::PackedPointwise
    residual::Bool
    rows::Int                 # of outputs of a band
    expanded::Vector{Int}     # places of a band's pixels in its expanded image
    places::Vector{Int}       # of the outputs
    convolved::Vector{Int}    # of the depthwise convolution's outputs
end

# With one block at least.
struct BottleneckNetwork
    stem::Stem
    blocks::Vector{Bottleneck}
    top::PackedPointwise
    sequence::Vector{Int}     # taps of 1×1 kernels
    places::Vector{Int}       # of the pixels of a strip of the last convolution
    image::Int                # Float32 of the largest image between layers
    expanded::Int             # of what a job makes
    convolved::Int            # of a band's convolved pixels
end

function Stem(window::Window, mean, scale, kernel::PackedPointwise)
    rows = min(4, window.out_height)
    pitch = row_pixels(window)
    plane_ = pitch * rows_read(window, rows)
    taps = vec([i + j * pitch + c * plane_ for i in 0:(window.kernel - 1), j in 0:(window.kernel - 1), c in 0:2])
    return Stem(window, mean, scale, kernel, rows, taps, steps(window.out_width, padded_outputs(kernel)))
end

steps(n, step) = collect(range(0; step, length=n))

function Bottleneck(window::Window, inputs, expand, depthwise::PackedDepthwise, project::PackedPointwise, residual)
    (; width, stride, out_width, out_height) = window
    pitch, channels = row_pixels(window), length(depthwise.bias)
    rows = clamp(BAND_FLOATS ÷ (stride * pitch * CHUNK + out_width * channels), 1, out_height)
    rows = cld(out_height, cld(out_height, rows))
    expanded = vec([(j * pitch + i) * CHUNK for i in 0:(width - 1), j in 0:(rows_read(window, rows) - 1)])
    pixels = rows * out_width
    return Bottleneck(window, inputs, expand, depthwise, project, residual, rows, expanded,
        steps(pixels, padded_outputs(project)), steps(pixels, channels))
end

function BottleneckNetwork(stem::Stem, blocks::Vector{Bottleneck}, top::PackedPointwise)
    pixels = prod(out_size(last(blocks).window))
    image = maximum([prod(out_size(stem.window)) * padded_outputs(stem.kernel);
        [prod(out_size(b.window)) * padded_outputs(b.project) for b in blocks]])
    expanded = maximum([3row_pixels(stem.window) * rows_read(stem.window, stem.rows); pixels * STRIP * LANES;
        [row_pixels(b.window) * rows_read(b.window, b.rows) * CHUNK for b in blocks]])
    convolved = maximum([b.rows * b.window.out_width * length(b.depthwise.bias) for b in blocks])
    taps = maximum([top.taps; [b.project.taps for b in blocks]])
    return BottleneckNetwork(stem, blocks, top, steps(taps, 1), steps(pixels, STRIP * LANES),
        round_up(image, LANES), round_up(expanded, LANES), round_up(convolved, LANES))
end

# A worker's memory: two images between layers, what is expanded, and what is convolved.
slot_length(n::BottleneckNetwork) = 2n.image + n.expanded + n.convolved

struct Slots
    start::Ptr{Float32}
    network::BottleneckNetwork
end

slot(s::Slots, number) = at(s.start, (number - 1) * slot_length(s.network))
image_memory(s::Slots, number, which) = at(slot(s, number), which * s.network.image)
expanded_memory(s::Slots, number) = at(slot(s, number), 2s.network.image)
convolved_memory(s::Slots, number) = at(slot(s, number), 2s.network.image + s.network.expanded)

# As foreach_job, on this thread alone: for the jobs of a job.
function alone(work::F, jobs::Integer) where {F}
    for job in 1:jobs
        work(job, 1)
    end
end

"""
    bottleneck_features!(features, network, x, buffers, name)

Write the features of each image.

# Arguments
- `features::Matrix{Float32}`: features × images.
- `network::BottleneckNetwork`
- `x::Array{<:Union{UInt8,Float32},4}`: `W×H×C×N`, raw pixels; of one channel or three.
"""
function bottleneck_features!(
    features::Matrix{Float32}, network::BottleneckNetwork, x::Array{T,4}, buffers::Buffers, name::Symbol,
) where {T<:Union{UInt8,Float32}}
    images, workers = size(x, 4), max_workers(typemax(Int))
    scratch = workspace(buffers, name, :slots, workers * slot_length(network))
    slots = Slots(pointer(scratch), network)
    GC.@preserve scratch network x features each_image(images) do image, worker, each
        image_features!(Returns(nothing), features, network, x, image, slots, worker, each)
    end
    return features
end

# Calls work(image, worker, each) for every image; `each` does a list of jobs: all threads do one image's where there are few.
function each_image(work::F, images) where {F}
    if images >= 2max_workers(typemax(Int))
        foreach_job((image, worker) -> work(image, worker, alone), images)
    else
        foreach(image -> work(image, 1, foreach_job), 1:images)
    end
end

# Of one image. seen(number, pointer) is called with the output of the stem, 0, and of every block.
function image_features!(seen::F, features, network, x, image, slots, worker, each::E) where {F,E}
    from = image_blocks!(seen, network, length(network.blocks), x, image, slots, worker, each)
    top!(pointer(features, (image - 1) * size(features, 1) + 1), size(features, 1), from, network, slots, worker, each)
    return nothing
end

# What the first `count` blocks make of an image: a pointer to it.
function image_blocks!(seen::F, network, count, x, image, slots, worker, each::E) where {F,E}
    (; stem, blocks) = network
    pixels = pointer(x, (image - 1) * stride(x, 4) + 1)
    from, to = image_memory(slots, worker, 0), image_memory(slots, worker, 1)
    stem!(from, stem, pixels, size(x, 3) == 1 ? 0 : stride(x, 3), slots, worker, each)
    seen(0, from)
    for number in 1:count
        bottleneck!(to, from, blocks[number], slots, worker, each)
        from, to = to, from
        seen(number, from)
    end
    return from
end

"""
    bottleneck_activations(network, x, buffers, name)

Return the outputs of the first convolution and of every block, `W×H×C×N` each, and the features.
"""
function bottleneck_activations(network::BottleneckNetwork, x::Array{T,4}, buffers::Buffers, name::Symbol) where {T<:Union{UInt8,Float32}}
    images, (; stem, blocks) = size(x, 4), network
    layers = [(stem.window, stem.kernel); [(block.window, block.project) for block in blocks]]
    found = [Array{Float32}(undef, out_size(window)..., kernel.outputs, images) for (window, kernel) in layers]
    features = Matrix{Float32}(undef, network.top.outputs, images)
    scratch = workspace(buffers, name, :slots, max_workers(typemax(Int)) * slot_length(network))
    GC.@preserve scratch network x features found for image in 1:images
        image_features!(features, network, x, image, Slots(pointer(scratch), network), 1, foreach_job) do number, from
            y = found[number + 1]
            width, height, channels = size(y)
            pixels = width * height
            transpose_block!(pointer(y, (image - 1) * pixels * channels + 1), pixels, from, round_up(channels, LANES), pixels, channels)
        end
    end
    return found, features
end

function stem!(y, stem::Stem, pixels::Ptr{T}, plane, slots, slot_, each::E) where {T,E}
    (; window, kernel) = stem
    pitch, read_ = row_pixels(window), rows_read(window, stem.rows)
    each(cld(window.out_height, stem.rows)) do job, worker
        tile, first = expanded_memory(slots, slot_ + worker - 1), (job - 1) * stem.rows
        for channel in 0:2, j in 0:(read_ - 1)
            to, row = at(tile, (channel * read_ + j) * pitch), first * window.stride - window.top + j
            clear!(to, pitch)
            0 <= row < window.height || continue
            from, start = pixels + (channel * plane + row * window.width) * sizeof(T), at(to, window.left)
            @simd ivdep for i in 1:window.width
                unsafe_store!(start, (Float32(unsafe_load(from, i)) - stem.mean) / stem.scale, i)
            end
        end
        for row in first:(min(first + stem.rows, window.out_height) - 1), strip in kernel.strips
            to = at(y, row * window.out_width * padded_outputs(kernel))
            x = at(tile, (row - first) * window.stride * pitch)
            p = Places(to, pointer(stem.places), x, window.stride, pointer(stem.taps), NULL)
            pointwise!(p, kernel, strip, window.out_width, true)
        end
    end
end

# The threads share the bands; if these are too few, the work of each.
function bottleneck!(y, x, block::Bottleneck, slots, slot_, each::E) where {E}
    bands = cld(block.window.out_height, block.rows)
    if bands >= max_workers(typemax(Int))
        each((band, worker) -> band!(y, x, block, band - 1, slots, slot_ + worker - 1, alone), bands)
    else
        foreach(band -> band!(y, x, block, band - 1, slots, slot_, each), 1:bands)
    end
end

# A band of a block's outputs.
function band!(y, x, block::Bottleneck, band, slots, slot_, each::E) where {E}
    (; window, depthwise, project) = block
    (; width, height, out_width) = window
    first = band * block.rows
    rows = min(block.rows, window.out_height - first)
    pitch, channels, outputs = row_pixels(window), length(depthwise.bias), padded_outputs(project)
    entering = round_up(block.inputs, LANES)
    # Of the rows that are read, those in the image.
    start, read_ = first * window.stride - window.top, rows_read(window, rows)
    from, past = max(start, 0), min(start + read_, height)
    convolved, sequence = convolved_memory(slots, slot_), pointer(slots.network.sequence)
    each(cld(channels, CHUNK)) do chunk, worker
        expanded, channel = expanded_memory(slots, slot_ + worker - 1), (chunk - 1) * CHUNK
        count = min(CHUNK, channels - channel)
        clear_edges!(expanded, window, read_, from - start, past - start)
        to = at(expanded, ((from - start) * pitch + window.left) * CHUNK)
        source = at(x, from * width * entering)
        expand_chunk!(to, block, source, (past - from) * width, channel, count, entering, sequence)
        weights = at(pointer(depthwise.weights), channel * depthwise.kernel^2)
        for row in 0:(rows - 1)
            depthwise_row!(DepthwiseRow(
                at(convolved, row * out_width * channels + channel), channels,
                at(expanded, row * window.stride * pitch * CHUNK), CHUNK, pitch * CHUNK,
                weights, at(pointer(depthwise.bias), channel), count ÷ LANES), out_width, depthwise.kernel, depthwise.stride)
        end
    end
    pixels, offset = rows * out_width, first * out_width * outputs
    parts, prior = cld(pixels, PART), block.residual ? at(x, offset) : NULL
    p = Places(at(y, offset), pointer(block.places), convolved, channels, sequence, prior)
    each(parts * length(project.strips)) do job, _
        strip, part = divrem(job - 1, parts)
        n = part * PART
        pointwise!(shifted(p, n, 0), project, project.strips[strip + 1], min(PART, pixels - n), false)
    end
end

# Zeros around the image's rows `from` to `past` of an expanded band.
function clear_edges!(expanded, window, rows, from, past)
    pitch = row_pixels(window)
    for row in 0:(rows - 1)
        to = at(expanded, row * pitch * CHUNK)
        if from <= row < past
            clear!(to, window.left * CHUNK)
            inside = window.left + window.width
            clear!(at(to, inside * CHUNK), (pitch - inside) * CHUNK)
        else
            clear!(to, pitch * CHUNK)
        end
    end
end

# Some channels of so many pixels, or a copy of them in a block without expansion.
function expand_chunk!(to, block, x, pixels, channel, count, entering, sequence)
    (; expand, expanded) = block
    if expand === nothing
        for n in 1:pixels
            unsafe_copyto!(at(to, expanded[n]), at(x, (n - 1) * entering + channel), count)
        end
    else
        p = Places(at(to, -channel), pointer(expanded), x, entering, sequence, NULL)
        for strip in expand.strips
            channel <= strip.first < channel + count && pointwise!(p, expand, strip, pixels, true)
        end
    end
end

# The last convolution, and the mean of its outputs over the pixels.
function top!(features, n, x, network, slots, slot_, each::E) where {E}
    (; top, places, sequence) = network
    pixels, entering = prod(out_size(last(network.blocks).window)), round_up(top.taps, LANES)
    each(length(top.strips)) do job, worker
        strip, tile = top.strips[job], expanded_memory(slots, slot_ + worker - 1)
        p = Places(at(tile, -strip.first), pointer(places), x, entering, pointer(sequence), NULL)
        pointwise!(p, top, strip, pixels, true)
        for vector in 0:(strip.vectors - 1)
            total, channel = zero(FloatVec), strip.first + vector * LANES
            for pixel in 0:(pixels - 1)
                total += load_vec(at(tile, pixel * STRIP * LANES + vector * LANES))
            end
            store_vec(at(features, channel), total / Float32(pixels), n - channel)
        end
    end
end

"""
    bottleneck_trunk!(y, network, count, x, buffers, name)

Write what the first `count` blocks make of images.

# Arguments
- `y::Array{Float32,3}`: channels × pixels × images.
- `network`, `x`: as for [`bottleneck_features!`](@ref).
"""
function bottleneck_trunk!(
    y::Array{Float32,3}, network::BottleneckNetwork, count::Int, x::Array{T,4}, buffers::Buffers, name::Symbol,
) where {T<:Union{UInt8,Float32}}
    scratch = workspace(buffers, name, :slots, max_workers(typemax(Int)) * slot_length(network))
    slots, (channels, pixels, images) = Slots(pointer(scratch), network), size(y)
    GC.@preserve scratch network x y each_image(images) do image, worker, each
        from = image_blocks!(Returns(nothing), network, count, x, image, slots, worker, each)
        to = pointer(y, (image - 1) * channels * pixels + 1)
        for pixel in 0:(pixels - 1)
            unsafe_copyto!(at(to, pixel * channels), at(from, pixel * round_up(channels, LANES)), channels)
        end
    end
    return y
end
