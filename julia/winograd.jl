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
# Patches and sums have their channels side by side, so an image's rows are turned on their way in and out. Patches are
# taken by strips, two rows of outputs each; a job's strips stay in the second cache.
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
turned_length(s::Strips, channels) = s.row * (2s.count + 2) * channels
planes_length(s::Strips, channels) = 16plane(s, channels)

# The first pixels of the vectors of a row: the last vector overlaps the one before.
vector_starts(width) = (min(i, width - LANES) for i in 0:LANES:(width - 1))

# The rows that a job's patches need, turned: to[channel, pixel, row], with zeros around the image.
function turn_in!(to, s::Strips, x, mask, channels, first_strip)
    (; width, height) = s
    for j in 0:(2s.count + 1)
        row = at(to, j * s.row * channels)
        y = 2first_strip + j - 1
        if 0 <= y < height
            clear!(row, channels)
            for channel in 0:LANES:(channels - 1), i in vector_starts(width)
                offset = (channel * height + y) * width + i
                turn_square!(at(row, (1 + i) * channels + channel), channels, at(x, offset), width * height,
                    mask == C_NULL ? mask : at(mask, offset))
            end
            clear!(at(row, (1 + width) * channels), (s.row - 1 - width) * channels)
        else
            clear!(row, s.row * channels)
        end
    end
end

# y[pixel, row, channel] of the job's outputs from[channel, pixel, row].
function turn_out!(y, s::Strips, from, channels, first_strip)
    (; width, height) = s
    for j in 0:(min(2s.count, height - 2first_strip) - 1), channel in 0:LANES:(channels - 1), i in vector_starts(width)
        turn_square!(at(y, (channel * height + 2first_strip + j) * width + i), width * height,
            at(from, (j * s.row + i) * channels + channel), channels, Ptr{Float32}(C_NULL))
    end
end

# f(corner, patch) for a job's patches and vectors of channels: places in turned rows and in a plane of numbers.
@inline function each_patch(f::F, s::Strips, channels) where {F}
    for strip in 0:(s.count - 1), across in 0:(s.across - 1), channel in 0:LANES:(channels - 1)
        f((2strip * s.row + 2across) * channels + channel, (strip * s.across + across) * channels + channel)
    end
end

# Bᵀ·d·B of every patch.
function transform_patches!(to, s::Strips, from, channels)
    line, plane_ = s.row * channels, plane(s, channels)
    each_patch(s, channels) do corner, patch
        d, v = at(from, corner), at(to, patch)
        Base.Cartesian.@nexprs 4 i -> begin
            a = load_vec(at(d, (i - 1) * channels))
            b = load_vec(at(d, (i - 1) * channels + line))
            c = load_vec(at(d, (i - 1) * channels + 2line))
            e = load_vec(at(d, (i - 1) * channels + 3line))
            t_i_1, t_i_2, t_i_3, t_i_4 = sub_vec(a, c), add_vec(b, c), sub_vec(c, b), sub_vec(b, e)
        end
        Base.Cartesian.@nexprs 4 j -> begin
            store_vec(at(v, (4j - 4) * plane_), sub_vec(t_1_j, t_3_j))
            store_vec(at(v, (4j - 3) * plane_), add_vec(t_2_j, t_3_j))
            store_vec(at(v, (4j - 2) * plane_), sub_vec(t_3_j, t_2_j))
            store_vec(at(v, (4j - 1) * plane_), sub_vec(t_2_j, t_4_j))
        end
    end
end

# A·dy·Aᵀ of every 2×2 outputs, which are the middle of a patch.
function transform_outputs!(to, s::Strips, from, channels)
    line, plane_ = s.row * channels, plane(s, channels)
    each_patch(s, channels) do corner, patch
        d, v = at(from, corner + line + channels), at(to, patch)
        Base.Cartesian.@nexprs 2 i -> begin
            a, b = load_vec(at(d, (i - 1) * channels)), load_vec(at(d, (i - 1) * channels + line))
            t_i_1, t_i_2, t_i_3, t_i_4 = a, add_vec(a, b), sub_vec(a, b), sub_vec(splat(0.0f0), b)
        end
        Base.Cartesian.@nexprs 4 j -> begin
            store_vec(at(v, (4j - 4) * plane_), t_1_j)
            store_vec(at(v, (4j - 3) * plane_), add_vec(t_1_j, t_2_j))
            store_vec(at(v, (4j - 2) * plane_), sub_vec(t_1_j, t_2_j))
            store_vec(at(v, (4j - 1) * plane_), sub_vec(splat(0.0f0), t_2_j))
        end
    end
end

# Aᵀ·m·A, bias and ReLU.
function finish_outputs!(to, s::Strips, from, channels, bias, rectify)
    line, plane_ = s.row * channels, plane(s, channels)
    each_patch(s, channels) do corner, patch
        m, y = at(from, patch), at(to, corner)
        shift = load_vec(at(bias, patch % channels))
        Base.Cartesian.@nexprs 4 i -> begin
            a, b = load_vec(at(m, (i - 1) * plane_)), load_vec(at(m, (i + 3) * plane_))
            c, e = load_vec(at(m, (i + 7) * plane_)), load_vec(at(m, (i + 11) * plane_))
            t_i_1, t_i_2 = add_vec(add_vec(a, b), c), sub_vec(sub_vec(b, c), e)
        end
        Base.Cartesian.@nexprs 2 j -> begin
            left = add_vec(add_vec(add_vec(t_1_j, t_2_j), t_3_j), shift)
            right = add_vec(sub_vec(sub_vec(t_2_j, t_3_j), t_4_j), shift)
            store_vec(at(y, (j - 1) * line), rectify ? positive(left) : left)
            store_vec(at(y, (j - 1) * line + channels), rectify ? positive(right) : right)
        end
    end
end

# G·g·Gᵀ, its outputs side by side: [output, input, number].
function transform_kernel!(u, weight)
    _, _, inputs, outputs = size(weight)
    @inbounds for input in 1:inputs, output in 1:outputs
        spread(a, b, c) = (a, (a + b + c) / 2, (a - b + c) / 2, c)
        columns_ = ntuple(kx -> spread(ntuple(ky -> weight[kx, ky, input, output], 3)...), 3)
        for j in 1:4
            numbers = spread(columns_[1][j], columns_[2][j], columns_[3][j])
            for i in 1:4
                u[output, input, 4j - 4 + i] = numbers[i]
            end
        end
    end
    return u
end

# Gᵀ·u·G.
function finish_kernel!(dw, du)
    gather(a, b, c, e) = (a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + e)
    @inbounds for input in axes(dw, 3), output in axes(dw, 4)
        rows = ntuple(j -> gather(ntuple(i -> du[output, input, 4j - 4 + i], 4)...), 4)
        for kx in 1:3
            numbers = gather(rows[1][kx], rows[2][kx], rows[3][kx], rows[4][kx])
            for ky in 1:3
                dw[kx, ky, input, output] = numbers[ky]
            end
        end
    end
    return dw
end

# From a job's turned rows to its outputs: patches, their numbers, the sums, and the outputs.
function strips!(y, s::Strips, rows, v, m, out, u, inputs, outputs, bias, rectify, first_strip)
    transform_patches!(v, s, rows, inputs)
    for number in 0:15
        product!(at(m, number * plane(s, outputs)), outputs, at(u, number * inputs * outputs), outputs,
            at(v, number * plane(s, inputs)), 1, inputs, outputs, s.patches, inputs, false)
    end
    finish_outputs!(out, s, m, outputs, bias, rectify)
    turn_out!(y, s, out, outputs, first_strip)
end

function winograd!(y, x, weight, bias, rectify, buffers, name)
    width, height, inputs, images = size(x)
    outputs = size(weight, 4)
    s = Strips(width, height, inputs + outputs)
    u = transform_kernel!(buffer(buffers, name, :kernel, outputs, inputs, 16), weight)
    sizes = (turned_length(s, inputs), planes_length(s, inputs), planes_length(s, outputs), turned_length(s, outputs))
    scratch = buffer(buffers, name, :strips, sum(sizes), Threads.nthreads())
    GC.@preserve buffers y x bias share(jobs_of(s) * images) do job, worker
        image, strip = divrem(job - 1, jobs_of(s)) .* (1, s.count)
        rows, v, m, out = places(at(pointer(scratch), (worker - 1) * sum(sizes)), sizes)
        turn_in!(rows, s, at(pointer(x), image * width * height * inputs), Ptr{Float32}(C_NULL), inputs, strip)
        to = at(pointer(y), image * width * height * outputs)
        strips!(to, s, rows, v, m, out, pointer(u), inputs, outputs, pointer(bias), rectify, strip)
    end
    return y
end

# Where each of four parts of a thread's workspace begins.
places(p, (a, b, c, _)) = (p, at(p, a), at(p, a + b), at(p, a + b + c))

function winograd_gradients!(dx, dw, db, x, weight, y, dy, rectify, buffers, name)
    width, height, inputs, images = size(x)
    outputs = size(weight, 4)
    s = Strips(width, height, inputs + outputs)
    u = buffer(buffers, name, :kernel, inputs, outputs, 16)
    dx === nothing || transform_kernel!(u, turned(weight))
    no_bias = fill!(buffer(buffers, name, :no_bias, inputs), 0.0f0)
    jobs = min(images, GROUPS)
    sizes = (turned_length(s, inputs), turned_length(s, outputs), planes_length(s, inputs), planes_length(s, outputs))
    scratch = buffer(buffers, name, :strips, sum(sizes), min(Threads.nthreads(), jobs))
    dus = buffer(buffers, name, :dus, outputs, inputs, 16, jobs)
    dbs = fill!(buffer(buffers, name, :dbs, outputs, jobs), 0.0f0)
    GC.@preserve buffers dx x y dy share(jobs) do job, worker
        rows, dy_rows, v, m = places(at(pointer(scratch), (worker - 1) * sum(sizes)), sizes)
        du, db_ = at(pointer(dus), (job - 1) * 16inputs * outputs), at(pointer(dbs), (job - 1) * outputs)
        clear!(du, 16inputs * outputs)
        for image in ((job - 1) * images ÷ jobs):(job * images ÷ jobs - 1), strip in 0:s.count:(cld(height, 2) - 1)
            of(array, channels) = at(pointer(array), image * width * height * channels)
            turn_in!(rows, s, of(x, inputs), Ptr{Float32}(C_NULL), inputs, strip)
            turn_in!(dy_rows, s, of(dy, outputs), rectify ? of(y, outputs) : Ptr{Float32}(C_NULL), outputs, strip)
            transform_patches!(v, s, rows, inputs)
            transform_outputs!(m, s, dy_rows, outputs)
            add_outputs!(db_, s, m, outputs)
            for number in 0:15
                product!(at(du, number * inputs * outputs), outputs, at(m, number * plane(s, outputs)), outputs,
                    at(v, number * plane(s, inputs)), inputs, 1, outputs, inputs, s.patches, true)
            end
            if dx !== nothing
                strips!(of(dx, inputs), s, dy_rows, m, v, rows, pointer(u), outputs, inputs, pointer(no_bias), false, strip)
            end
        end
    end
    finish_kernel!(dw, sum!(buffer(buffers, name, :du, outputs, inputs, 16, 1), dus))
    sum!(reshape(db, :, 1), dbs)
    return nothing
end

# A patch's second number of the second row is the sum of its four outputs: together they are the bias' gradient.
function add_outputs!(db, s::Strips, m, channels)
    sums = at(m, 5plane(s, channels))
    for channel in 0:LANES:(channels - 1)
        total = load_vec(at(db, channel))
        for patch in 0:(s.patches - 1)
            total = add_vec(total, load_vec(at(sums, patch * channels + channel)))
        end
        store_vec(at(db, channel), total)
    end
end
