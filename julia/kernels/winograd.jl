# Winograd's convolution of 3×3 kernels, four outputs for 16 multiplications instead of 36: F(2×2, 3×3) of Lavin & Gray (2016),
# "Fast Algorithms for Convolutional Neural Networks". A patch of 4×4 pixels `d` and a kernel `g` become Bᵀ·d·B and
# G·g·Gᵀ, 16 numbers each, which are multiplied and summed over the channels, a matrix product for each of the 16; the sums `m`
# become 2×2 outputs Aᵀ·m·A. The filter gradient is the transpose: Gᵀ·[Σ (A·dy·Aᵀ)(Bᵀ·d·B)]·G.
#
#     Bᵀ = 1  0 −1  0     G = 1    0   0     Aᵀ = 1  1  1  0
#          0  1  1  0         1/2  1/2 1/2        0  1 −1 −1
#          0 −1  1  0         1/2 −1/2 1/2
#          0  1  0 −1         0    0   1
#
# Patches and sums have their channels side by side, so an image's rows are transposed on their way in and out. Patches are
# taken by strips, two rows of outputs each; a job's strips stay in the second-level cache.
const STRIP_FLOATS = 2^13    # channels, in and out, times patches of a job

# Channels in whole vectors, and rows in which a vector fits.
suits_winograd(width, inputs, outputs) = width >= LANES && whole_vectors(inputs, outputs)
whole_vectors(inputs, outputs) = inputs % LANES == 0 && outputs % LANES == 0

struct Strips
    width::Int
    height::Int
    count::Int      # strips of a job
    across::Int     # patches of a strip
    patches::Int    # patches of a job
    row::Int        # pixels of a row with its edges
end

function Strips(width, height, channels)
    across, down = cld(width, 2), cld(height, 2)
    count = clamp(STRIP_FLOATS ÷ (across * channels), 1, down)
    return Strips(width, height, count, across, count * across, 2across + 2)
end

jobs_of(s::Strips) = cld(cld(s.height, 2), s.count)
# The first, second, … numbers of all patches lie together. Their distance is no power of two, at which they would push each
# other out of the cache.
plane(s::Strips, channels) = s.patches * channels + LANES
rows_length(s::Strips, channels) = s.row * (2s.count + 2) * channels
planes_length(s::Strips, channels) = 16plane(s, channels)

# The first pixels of the vectors of a row: the last vector overlaps the one before.
vector_starts(width) = (min(i, width - LANES) for i in 0:LANES:(width - 1))

# The rows that a job's patches need, transposed: to[channel, pixel, row], with zeros around the image.
function load_rows!(to, s::Strips, x, mask, channels, first_strip)
    (; width, height) = s
    for j in 0:(2s.count + 1)
        row = at(to, j * s.row * channels)
        y = 2first_strip + j - 1
        if 0 <= y < height
            clear!(row, channels)
            for channel in 0:LANES:(channels - 1), i in vector_starts(width)
                offset = (channel * height + y) * width + i
                transpose_tile!(at(row, (1 + i) * channels + channel), channels, at(x, offset), width * height,
                    mask == NULL ? mask : at(mask, offset))
            end
            clear!(at(row, (1 + width) * channels), (s.row - 1 - width) * channels)
        else
            clear!(row, s.row * channels)
        end
    end
end

# y[pixel, row, channel] of the job's outputs from[channel, pixel, row].
function store_rows!(y, s::Strips, from, channels, first_strip)
    (; width, height) = s
    for j in 0:(min(2s.count, height - 2first_strip) - 1), channel in 0:LANES:(channels - 1), i in vector_starts(width)
        transpose_tile!(at(y, (channel * height + 2first_strip + j) * width + i), width * height,
            at(from, (j * s.row + i) * channels + channel), channels, NULL)
    end
end

# f(corner, patch) for a job's patches and vectors of channels: places in transposed rows and in a plane of numbers.
@inline function foreach_patch(f::F, s::Strips, channels) where {F}
    for strip in 0:(s.count - 1), across in 0:(s.across - 1), channel in 0:LANES:(channels - 1)
        f((2strip * s.row + 2across) * channels + channel, (strip * s.across + across) * channels + channel)
    end
end

# Bᵀ·d·B of every patch.
function transform_patches!(to, s::Strips, from, channels)
    line, plane_ = s.row * channels, plane(s, channels)
    foreach_patch(s, channels) do corner, patch
        d, v = at(from, corner), at(to, patch)
        Base.Cartesian.@nexprs 4 i -> begin
            a = load_vec(at(d, (i - 1) * channels))
            b = load_vec(at(d, (i - 1) * channels + line))
            c = load_vec(at(d, (i - 1) * channels + 2line))
            e = load_vec(at(d, (i - 1) * channels + 3line))
            t_i_1, t_i_2, t_i_3, t_i_4 = a - c, b + c, c - b, b - e
        end
        Base.Cartesian.@nexprs 4 j -> begin
            store_vec(at(v, (4j - 4) * plane_), t_1_j - t_3_j)
            store_vec(at(v, (4j - 3) * plane_), t_2_j + t_3_j)
            store_vec(at(v, (4j - 2) * plane_), t_3_j - t_2_j)
            store_vec(at(v, (4j - 1) * plane_), t_2_j - t_4_j)
        end
    end
end

# A·dy·Aᵀ of every 2×2 outputs, which are the middle of a patch.
function transform_gradients!(to, s::Strips, from, channels)
    line, plane_ = s.row * channels, plane(s, channels)
    foreach_patch(s, channels) do corner, patch
        d, v = at(from, corner + line + channels), at(to, patch)
        Base.Cartesian.@nexprs 2 i -> begin
            a, b = load_vec(at(d, (i - 1) * channels)), load_vec(at(d, (i - 1) * channels + line))
            t_i_1, t_i_2, t_i_3, t_i_4 = a, a + b, a - b, zero(FloatVec) - b
        end
        Base.Cartesian.@nexprs 4 j -> begin
            store_vec(at(v, (4j - 4) * plane_), t_1_j)
            store_vec(at(v, (4j - 3) * plane_), t_1_j + t_2_j)
            store_vec(at(v, (4j - 2) * plane_), t_1_j - t_2_j)
            store_vec(at(v, (4j - 1) * plane_), zero(FloatVec) - t_2_j)
        end
    end
end

# Aᵀ·m·A, bias and ReLU.
function inverse_transform!(to, s::Strips, from, channels, bias, relu)
    line, plane_ = s.row * channels, plane(s, channels)
    foreach_patch(s, channels) do corner, patch
        m, y = at(from, patch), at(to, corner)
        shift = load_vec(at(bias, patch % channels))
        Base.Cartesian.@nexprs 4 i -> begin
            a, b = load_vec(at(m, (i - 1) * plane_)), load_vec(at(m, (i + 3) * plane_))
            c, e = load_vec(at(m, (i + 7) * plane_)), load_vec(at(m, (i + 11) * plane_))
            t_i_1, t_i_2 = a + b + c, b - c - e
        end
        Base.Cartesian.@nexprs 2 j -> begin
            left = t_1_j + t_2_j + t_3_j + shift
            right = t_2_j - t_3_j - t_4_j + shift
            store_vec(at(y, (j - 1) * line), relu ? positive(left) : left)
            store_vec(at(y, (j - 1) * line + channels), relu ? positive(right) : right)
        end
    end
end

# Where number `number` of the kernel of these channels is, all counted from 1: [output, input, number].
@inline number_index(inputs, outputs, output, input, number) = output + outputs * (input - 1 + inputs * (number - 1))

# G·g·Gᵀ, its outputs side by side.
function transform_kernel!(u, weight)
    _, _, inputs, outputs = size(weight)
    spread(a, b, c) = (a, (a + b + c) / 2, (a - b + c) / 2, c)
    @inbounds for input in 1:inputs, output in 1:outputs
        columns_ = ntuple(kx -> spread(ntuple(ky -> weight[kx, ky, input, output], 3)...), 3)
        for j in 1:4
            numbers = spread(columns_[1][j], columns_[2][j], columns_[3][j])
            for i in 1:4
                u[number_index(inputs, outputs, output, input, 4j - 4 + i)] = numbers[i]
            end
        end
    end
    return u
end

# Gᵀ·u·G.
function kernel_gradient!(dw, du)
    _, _, inputs, outputs = size(dw)
    gather(a, b, c, e) = (a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + e)
    @inbounds for input in 1:inputs, output in 1:outputs
        rows = ntuple(j -> gather(ntuple(i -> du[number_index(inputs, outputs, output, input, 4j - 4 + i)], 4)...), 4)
        for kx in 1:3
            numbers = gather(rows[1][kx], rows[2][kx], rows[3][kx], rows[4][kx])
            for ky in 1:3
                dw[kx, ky, input, output] = numbers[ky]
            end
        end
    end
    return dw
end

# A job's memory: rows and numbers of the inputs, numbers and rows of the outputs.
struct StripMemory
    rows::Ptr{Float32}
    numbers::Ptr{Float32}
    sums::Ptr{Float32}
    out_rows::Ptr{Float32}
end

strip_sizes(s::Strips, inputs, outputs) =
    (rows_length(s, inputs), planes_length(s, inputs), planes_length(s, outputs), rows_length(s, outputs))
StripMemory(p, (a, b, c, _)) = StripMemory(p, at(p, a), at(p, a + b), at(p, a + b + c))
backwards(m::StripMemory) = StripMemory(m.out_rows, m.sums, m.numbers, m.rows)

# A transformed kernel, and what follows the product with it.
struct TransformedKernel
    numbers::Vector{Float32}
    inputs::Int
    outputs::Int
    bias::Vector{Float32}
    relu::Bool
end

function transformed_kernel(weight, bias, relu, buffers, name)
    _, _, inputs, outputs = size(weight)
    numbers = transform_kernel!(workspace(buffers, name, :kernel, 16inputs * outputs), weight)
    return TransformedKernel(numbers, inputs, outputs, bias, relu)
end

# From a job's transposed rows to its outputs in `y`: patches, their numbers, the sums, and the outputs.
function strip_outputs!(y, s::Strips, memory::StripMemory, kernel::TransformedKernel, first_strip)
    (; inputs, outputs) = kernel
    transform_patches!(memory.numbers, s, memory.rows, inputs)
    for number in 0:15
        u, v = at(pointer(kernel.numbers), number * inputs * outputs), at(memory.numbers, number * plane(s, inputs))
        m = at(memory.sums, number * plane(s, outputs))
        product!(Block(m, outputs), Block(u, outputs), Block(v, inputs), (outputs, s.patches, inputs), false)
    end
    inverse_transform!(memory.out_rows, s, memory.sums, outputs, pointer(kernel.bias), kernel.relu)
    store_rows!(y, s, memory.out_rows, outputs, first_strip)
end

"""
    winograd!(y, x, weight, bias, relu, buffers, name)

As [`correlate!`](@ref), where [`suits_winograd`](@ref).
"""
function winograd!(y, x, weight, bias, relu, buffers, name)
    width, height, inputs, images = size(x)
    outputs = size(weight, 4)
    s = Strips(width, height, inputs + outputs)
    kernel = transformed_kernel(weight, bias, relu, buffers, name)
    jobs, sizes = jobs_of(s) * images, strip_sizes(s, inputs, outputs)
    scratch = workspace(buffers, name, :strips, sum(sizes) * max_workers(jobs))
    GC.@preserve scratch kernel y x foreach_job(jobs) do job, worker
        image, strip = divrem(job - 1, jobs_of(s)) .* (1, s.count)
        memory = StripMemory(at(pointer(scratch), (worker - 1) * sum(sizes)), sizes)
        load_rows!(memory.rows, s, image_of(x, image).start, NULL, inputs, strip)
        strip_outputs!(image_of(y, image).start, s, memory, kernel, strip)
    end
    return y
end

"""
    winograd_gradients!(dx, dw, db, x, weight, y, dy, relu, buffers, name)

As [`correlate_gradients!`](@ref), where [`suits_winograd`](@ref).
"""
function winograd_gradients!(dx, dw, db, x, weight, y, dy, relu, buffers, name)
    width, height, inputs, images = size(x)
    outputs = size(weight, 4)
    s = Strips(width, height, inputs + outputs)
    kernel = dx === nothing ? nothing : transformed_kernel(flip_kernel(weight), zeros(Float32, inputs), false, buffers, name)
    units = jobs_of(s) * images
    groups = groups_of(width * height * images, PIXELS_OF_GROUP, units)
    sizes = strip_sizes(s, inputs, outputs)
    scratch = workspace(buffers, name, :strips, sum(sizes) * max_workers(groups))
    dus = workspace(buffers, name, :dus, 16inputs * outputs * groups)
    dbs = fill!(workspace(buffers, name, :dbs, outputs * groups), 0.0f0)
    GC.@preserve scratch dus dbs kernel dx x y dy foreach_job(groups) do group, worker
        memory = StripMemory(at(pointer(scratch), (worker - 1) * sum(sizes)), sizes)
        du, db_ = at(pointer(dus), (group - 1) * 16inputs * outputs), at(pointer(dbs), (group - 1) * outputs)
        clear!(du, 16inputs * outputs)
        for unit in units_of(group, groups, units)
            image, strip = divrem(unit, jobs_of(s)) .* (1, s.count)
            load_rows!(memory.rows, s, image_of(x, image).start, NULL, inputs, strip)
            load_rows!(memory.out_rows, s, image_of(dy, image).start, relu ? image_of(y, image).start : NULL, outputs, strip)
            transform_patches!(memory.numbers, s, memory.rows, inputs)
            transform_gradients!(memory.sums, s, memory.out_rows, outputs)
            add_bias_gradient!(db_, s, memory.sums, outputs)
            for number in 0:15
                m, v = at(memory.sums, number * plane(s, outputs)), at(memory.numbers, number * plane(s, inputs))
                product!(Block(at(du, number * inputs * outputs), outputs), Block(m, outputs), Block(v, inputs, 1),
                    (outputs, inputs, s.patches), true)
            end
            dx === nothing || strip_outputs!(image_of(dx, image).start, s, backwards(memory), kernel, strip)
        end
    end
    total = workspace(buffers, name, :du, 16inputs * outputs)
    kernel_gradient!(dw, sum_groups!(total, 16inputs * outputs, dus, groups))
    sum_groups!(db, outputs, dbs, groups)
    return nothing
end

# A patch's second number of the second row is the sum of its four outputs: together they are the bias' gradient.
function add_bias_gradient!(db, s::Strips, m, channels)
    sums = at(m, 5plane(s, channels))
    for channel in 0:LANES:(channels - 1)
        total = load_vec(at(db, channel))
        for patch in 0:(s.patches - 1)
            total += load_vec(at(sums, patch * channels + channel))
        end
        store_vec(at(db, channel), total)
    end
end
