# The kernels of a training step on a device: of the passes that neither its libraries have nor a broadcast can make in one. They are
# KernelAbstractions' and compute what the kernels for a CPU compute; a number is one thread's.

const THREADS_OF_GROUP = 256

# kernel!(arguments...) for each number from 1 to n, on the device that has `array`.
launch!(kernel!, array, n, arguments...) = kernel!(get_backend(array), THREADS_OF_GROUP)(arguments...; ndrange=n)

# Numbers from 0 of one with this linear index, in an array of these first sizes: 32 bits, in which a division is fast.
@inline function split_index(n, sizes...)
    rest = (n - 1) % Int32
    return map_sizes(rest, map(size -> size % Int32, sizes)...)
end

@inline map_sizes(rest) = (rest,)
@inline map_sizes(rest, size, others...) = (rest % size, map_sizes(rest ÷ size, others...)...)

# Batches as `gather!` makes them. Of each image `chosen` says which it is, and a column of `maps` how it is transformed: 1 and its
# coordinate map, or 0.
@kernel function gather_kernel!(x, @Const(images), @Const(chosen), @Const(maps), width, height, channels)
    n = @index(Global, Linear)
    i, j, k, b = split_index(n, width, height, channels)
    @inbounds begin
        plane = (Int(chosen[b + 1]) - 1) * (Int(width) * height * channels) + Int(k) * (Int(width) * height)
        if maps[1, b + 1] == 0
            x[n] = images[plane + Int(j) * width + i + 1]
        else
            map_of = (maps[2, b + 1], maps[3, b + 1], maps[4, b + 1], maps[5, b + 1])
            i₀, j₀, i₁, j₁, fx, fy = source_of(Float32, i + 1, j + 1, width, height, map_of)
            at(i, j) = Float32(images[plane + (j - 1) * width + i])
            x[n] = between(at(i₀, j₀), at(i₁, j₀), at(i₀, j₁), at(i₁, j₁), fx, fy)
        end
    end
end

# A convolution's output with bias and activation.
@kernel function activate_kernel!(y, @Const(bias), relu, places)
    n = @index(Global, Linear)
    _, k = split_index(n, places, length(bias))
    @inbounds begin
        value = y[n] + bias[k + 1]
        y[n] = ifelse(relu & (value <= 0), zero(value), value)
    end
end

# A gradient, where the output of a ReLU is above 0.
@kernel function mask_kernel!(dy, @Const(y))
    n = @index(Global, Linear)
    @inbounds dy[n] = ifelse(y[n] > 0, dy[n], zero(eltype(dy)))
end

# `Kernels.pool_plane!`, of a convolution's output without its bias.
@kernel function pool_kernel!(y, chosen, @Const(x), bias, relu, width, height)
    n = @index(Global, Linear)
    across, down = width ÷ 2, height ÷ 2
    i, j, plane = split_index(n, across, down)
    @inbounds begin
        at = Int(plane) * (Int(width) * height) + 2 * Int(j) * width + 2i + 1
        added = bias_of(bias, plane)
        best, k = x[at] + added, 0x00
        best, k = Kernels.larger(best, k, x[at + 1] + added, 0x01)
        best, k = Kernels.larger(best, k, x[at + width] + added, 0x02)
        best, k = Kernels.larger(best, k, x[at + width + 1] + added, 0x03)
        y[n] = ifelse(relu & (best <= 0), zero(best), best)
        chosen[n] = ifelse(relu & !(best > 0), Kernels.NO_ELEMENT, k)
    end
end

@inline bias_of(::Nothing, plane) = false
@inline bias_of(bias, plane) = @inbounds bias[plane % (length(bias) % Int32) + 1]

# `Kernels.unpool!`.
@kernel function unpool_kernel!(dx, @Const(dy), @Const(chosen), width, height)
    n = @index(Global, Linear)
    i, j, plane = split_index(n, width, height)
    across, down = width ÷ 2, height ÷ 2
    @inbounds if (i ÷ 2 < across) & (j ÷ 2 < down)
        window = (Int(plane) * down + j ÷ 2) * across + i ÷ 2 + 1
        place = (2 * (j % 2) + i % 2) % UInt8
        dx[n] = ifelse(chosen[window] == place, dy[window], zero(eltype(dx)))
    else
        dx[n] = zero(eltype(dx))
    end
end

# The gradient of a 3×3 convolution's kernel from that of its pooled output: of each window one element has a gradient, so this is a
# quarter of the products, and nothing is spread. Sums over the images from `first_image` on, of one window, input and output channel:
# `sums[window, group of images, tap, input, output]`.
@kernel function pooled_filter_kernel!(sums, @Const(x), @Const(dy), @Const(chosen), width, height, across, windows, images, group, groups, inputs, outputs)
    n = @index(Global, Linear)
    window, part, c, k = split_index(n, windows, groups, inputs)
    @inbounds begin
        column, row = 2 * (window % (across % Int32)), 2 * (window ÷ (across % Int32))
        total = ntuple(_ -> 0.0f0, Val(9))
        for b in (part * group):(min((part + 1) * group, images) - 1)
            place = (Int(b) * outputs + k) * windows + window + 1
            element, slope = chosen[place], dy[place]
            if element != Kernels.NO_ELEMENT
                i, j = column + (element & 0x01) % Int32, row + (element >> 1) % Int32
                total = with_products(total, slope, x, (Int(b) * inputs + c) * (Int(width) * height), i, j, width, height)
            end
        end
        first_place = ((Int(k) * inputs + c) * 9 * groups + part) * windows + window + 1
        Base.Cartesian.@nexprs 9 tap -> (sums[first_place + (tap - 1) * (Int(groups) * windows)] = total[tap])
    end
end

# A function of its own: no variable that a closure captures may be assigned again.
@inline function with_products(total, slope, x, plane, i, j, width, height)
    return ntuple(Val(9)) do tap
        u, v = i + (tap - 1) % 3 - 1, j + (tap - 1) ÷ 3 - 1
        inside = (0 <= u) & (u < width) & (0 <= v) & (v < height)
        pixel = @inbounds x[plane + ifelse(inside, Int(v) * width + u, 0) + 1]
        total[tap] + ifelse(inside, slope * pixel, 0.0f0)
    end
end

# `drop!`, with the numbers that `rand!` draws from a SplitMix of this state, each made where it is used.
@kernel function drop_kernel!(y, @Const(x), state, step, rate, factor)
    n = @index(Global, Linear)
    word = mixed(state + ((n + 1) ÷ 2) % UInt64 * step)
    half = (isodd(n) ? word : word >> 32) % UInt32
    @inbounds y[n] = (unit_float(half) > rate) * (factor * x[n])
end

# `Kernels.apply_block!` of an `AdamStep`.
@kernel function adam_kernel!(w, m, v, @Const(dw), α, r₁, r₂, ϵ, penalty)
    n = @index(Global, Linear)
    @inbounds begin
        weight, mean, square = w[n], m[n], v[n]
        g = dw[n] + slope(penalty, weight)
        mean += (g - mean) * r₁
        square += (g * g - square) * r₂
        m[n] = mean
        v[n] = square
        root = sqrt(square) + ϵ
        w[n] = shrunk(penalty, weight - mean * α / root, α, root)
    end
end
