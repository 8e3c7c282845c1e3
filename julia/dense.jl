# Dense layers on a CPU whose kernel is large: memory is what they wait for. The kernel is read once forward, in blocks of
# columns, and once backward, where each block's input gradient, weight gradient and update are made while it is in cache.
const BLOCK = 8192    # weights of a block of columns

is_blocked(weight) = size(weight, 1) % (ROWS * LANES) == 0
is_large(weight) = is_blocked(weight) && length(weight) > 2^22
columns(weight) = max(1, BLOCK ÷ size(weight, 1))

# y = W·x of a large kernel: each job sums over a share of the inputs, in blocks of columns that stay in cache.
function large_product!(y::Matrix{Float32}, weight::Matrix{Float32}, x::Matrix{Float32}, buffers::Buffers, name::Symbol)
    units, inputs = size(weight)
    images, step = size(x, 2), columns(weight)
    jobs = min(GROUPS, cld(inputs, step))
    parts = buffer(buffers, name, :parts, units, images, jobs)
    # The images' inputs lie far apart; those of a block are copied together.
    packed = buffer(buffers, name, :packed, step * images, Threads.nthreads())
    GC.@preserve buffers weight x share(jobs) do job, worker
        part = at(pointer(parts), (job - 1) * units * images)
        xs = at(pointer(packed), (worker - 1) * step * images)
        start, stop = (job - 1) * inputs ÷ jobs, job * inputs ÷ jobs
        clear!(part, units * images)
        for j in start:step:(stop - 1)
            K = min(step, stop - j)
            for image in 0:(images - 1)
                unsafe_copyto!(at(xs, image * K), at(pointer(x), image * inputs + j), K)
            end
            from = at(pointer(weight), j * units)
            # The next block is read meanwhile. For few images a column at a time, whole: the weights are then read one
            # after the other.
            next, soon = at(from, K * units), min(step, stop - j - K) * units
            if images < COLUMNS && units % (2ROWS * LANES) == 0
                product!(part, units, from, units, xs, 1, K, units, images, K, true, Val(2ROWS), next, soon)
            else
                product!(part, units, from, units, xs, 1, K, units, images, K, true, Val(ROWS), next, soon)
            end
        end
    end
    return sum!(reshape(y, units, images, 1), parts)
end

# y = W·x of a kernel that the cache holds: each job makes some rows for some images, in blocks of inputs.
function small_product!(y::Matrix{Float32}, weight::Matrix{Float32}, x::Matrix{Float32})
    (units, inputs), images = size(weight), size(x, 2)
    rows, wide, deep = ROWS * LANES, 32, 64
    strips = units ÷ rows
    GC.@preserve y weight x share(strips * cld(images, wide)) do job, _
        group, strip = divrem(job - 1, strips)
        n, m = group * wide, strip * rows
        for k in 0:deep:(inputs - 1)
            product!(at(pointer(y), n * units + m), units, at(pointer(weight), k * units + m), units,
                at(pointer(x), n * inputs + k), 1, inputs, rows, min(wide, images - n), min(deep, inputs - k), k > 0, Val(ROWS))
        end
    end
    return y
end

"""
    dense!(y, layer, x, buffers, name)

Write a `Dense` layer's output, its bias and ReLU included, into `y`.
"""
function dense!(y, layer::Dense, x, buffers, name)
    (; weight, bias, σ) = layer
    if is_large(weight)
        large_product!(y, weight, x, buffers, name)
    elseif is_blocked(weight)
        small_product!(y, weight, x)
    else
        BLAS.gemm!('N', 'N', 1.0f0, weight, x, 0.0f0, y)
    end
    y .= σ.(y .+ bias)
    return y
end

"""
    dense_gradients!(dx, target, penalty, layer, x, dy, buffers, name)

Make the gradients of a `Dense` layer from `dy`, that of its sum before the activation.

Each block of columns of the weight gradient is given to `target` ([`take!`](@ref)) as soon as it is made: it is never
stored where the target is an update. `dx` is written from the weights before the update; nothing where nobody asks for it.

# Returns
- `Float32`: the penalty's value at the weights before the update.
"""
function dense_gradients!(dx, target, p::Penalty, layer::Dense, x, dy, buffers, name)
    is_blocked(layer.weight) && return blocked_gradients!(dx, target, p, layer.weight, x, dy, buffers, name)
    dw = buffer(buffers, name, :dw, size(layer.weight)...)
    BLAS.gemm!('N', 'T', 1.0f0, dy, x, 0.0f0, dw)
    dx === nothing || BLAS.gemm!('T', 'N', 1.0f0, layer.weight, dy, 0.0f0, dx)
    return give!(target, p, layer.weight, dw)
end

function blocked_gradients!(dx, target, p, weight, x, dy, buffers, name)
    units, inputs = size(weight)
    images, step = size(x, 2), columns(weight)
    # dy with the images side by side, in pairs of vectors.
    padded = blocks(images, 2LANES)
    turned_dy = buffer(buffers, name, :turned_dy, padded, units)
    turned_dy .= 0
    transpose!(view(turned_dy, 1:images, :), dy)
    size_ = (images + units + padded) * step
    workspace = buffer(buffers, name, :blocks, size_, Threads.nthreads())
    jobs = cld(inputs, step)
    values = buffer(buffers, name, :values, jobs)
    GC.@preserve buffers weight x dy dx target share(jobs) do job, worker
        j = (job - 1) * step
        n = min(step, inputs - j)
        xs = at(pointer(workspace), (worker - 1) * size_)
        dw, dxs = at(xs, images * step), at(xs, (images + units) * step)
        w = at(pointer(weight), j * units)
        turn!(xs, images, at(pointer(x), j), inputs, images, n)
        m, v, soon = soon_read(target, w, j * units, n * units)
        if dx !== nothing
            product!(dxs, padded, pointer(turned_dy), padded, w, 1, units, padded, n, units, false, Val(2), m, soon)
            turn!(at(pointer(dx), j), inputs, dxs, padded, n, images)
        end
        product!(dw, units, pointer(dy), units, xs, 1, images, units, n, images, false, Val(ROWS), v, soon)
        values[job] = take!(target, p, w, dw, j * units, n * units)
    end
    return sum(values)
end

# to[i, k] = from[k, i] for the first m of i and n of k; both have columns that far apart.
function turn!(to, to_columns, from, from_columns, m, n)
    squares_m, squares_n = m - m % LANES, n - n % LANES
    for k in 0:LANES:(squares_n - 1), i in 0:LANES:(squares_m - 1)
        turn_square!(at(to, k * to_columns + i), to_columns, at(from, i * from_columns + k), from_columns, Ptr{Float32}(C_NULL))
    end
    for k in 0:(n - 1), i in (k < squares_n ? squares_m : 0):(m - 1)
        unsafe_store!(at(to, k * to_columns + i), unsafe_load(at(from, i * from_columns + k)))
    end
end
