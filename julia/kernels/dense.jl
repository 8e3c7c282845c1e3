# Dense layers whose kernel is large: memory is what they wait for. The kernel is read once forward, in blocks of columns, and
# once backward, where each block's input gradient, weight gradient and update are made while it is in cache.
is_blocked(weight) = size(weight, 1) % (ROWS * LANES) == 0
is_large(weight) = is_blocked(weight) && length(weight) > 2^22
columns(weight) = max(1, BLOCK ÷ size(weight, 1))

"""
    dense_product!(y, weight, x, buffers, name)

Write `weight * x` into `y`.
"""
function dense_product!(y::Matrix{Float32}, weight::Matrix{Float32}, x::Matrix{Float32}, buffers::Buffers, name::Symbol)
    is_large(weight) && return large_product!(y, weight, x, buffers, name)
    is_blocked(weight) && return small_product!(y, weight, x)
    return BLAS.gemm!('N', 'N', 1.0f0, weight, x, 0.0f0, y)
end

# Of a kernel larger than the cache: each job sums over a share of the inputs, in blocks of columns that stay in cache.
function large_product!(y, weight, x, buffers, name)
    units, inputs = size(weight)
    images, step = size(x, 2), columns(weight)
    groups = groups_of(length(weight), WEIGHTS_OF_GROUP, cld(inputs, step))
    parts = workspace(buffers, name, :parts, units * images * groups)
    # The images' inputs lie far apart; those of a block are copied together.
    packed = workspace(buffers, name, :packed, step * images * max_workers(groups))
    GC.@preserve parts packed weight x foreach_job(groups) do group, worker
        part = at(pointer(parts), (group - 1) * units * images)
        xs = at(pointer(packed), (worker - 1) * step * images)
        share = units_of(group, groups, inputs)
        clear!(part, units * images)
        for j in first(share):step:last(share)
            K = min(step, last(share) + 1 - j)
            for image in 0:(images - 1)
                unsafe_copyto!(at(xs, image * K), at(pointer(x), image * inputs + j), K)
            end
            w = at(pointer(weight), j * units)
            # The next block is read meanwhile.
            ahead = (at(w, K * units), min(step, last(share) + 1 - j - K) * units)
            c, a, b = Block(part, units), Block(w, units), Block(xs, K)
            # For few images a column at a time, whole: the weights are then read one after the other.
            if images < COLUMNS && units % (2ROWS * LANES) == 0
                product!(c, a, b, (units, images, K), true, Val(2ROWS), ahead)
            else
                product!(c, a, b, (units, images, K), true, Val(ROWS), ahead)
            end
        end
    end
    return sum_groups!(y, length(y), parts, groups)
end

# Of a kernel that the cache holds: each job makes some rows for some images, in blocks of inputs.
function small_product!(y, weight, x)
    (units, inputs), images = size(weight), size(x, 2)
    rows, wide, deep = ROWS * LANES, 32, 64
    strips = units ÷ rows
    GC.@preserve y weight x foreach_job(strips * cld(images, wide)) do job, _
        part, strip = divrem(job - 1, strips)
        n, m = part * wide, strip * rows
        c, a, b = Block(pointer(y), units), Block(pointer(weight), units), Block(pointer(x), inputs)
        for k in 0:deep:(inputs - 1)
            dims = (rows, min(wide, images - n), min(deep, inputs - k))
            product!(shifted(c, m, n), shifted(a, m, k), shifted(b, k, n), dims, k > 0, Val(ROWS))
        end
    end
    return y
end

"""
    dense_gradients!(dx, target, weight, x, dy, buffers, name)

Make the gradients of `weight * x` from `dy`.

Each block of columns of the weight gradient is given to `target` ([`apply_block!`](@ref)) as soon as it is made: it is never stored
where the target is an update. `dx` is written from the weights before the update; nothing where nobody asks for it.

# Returns
- `Float32`: the sum of what `apply_block!` returns.
"""
function dense_gradients!(dx, target, weight::Matrix{Float32}, x, dy, buffers, name)
    is_blocked(weight) && return blocked_gradients!(dx, target, weight, x, dy, buffers, name)
    return GC.@preserve buffers begin
        dw = BLAS.gemm!('N', 'T', 1.0f0, dy, x, 0.0f0, buffer(buffers, name, :dw, size(weight)...))
        dx === nothing || BLAS.gemm!('T', 'N', 1.0f0, weight, dy, 0.0f0, dx)
        apply_gradient!(target, weight, dw)
    end
end

function blocked_gradients!(dx, target, weight, x, dy, buffers, name)
    units, inputs = size(weight)
    images, step = size(x, 2), columns(weight)
    # dy with the images side by side, in pairs of vectors.
    padded = round_up(images, 2LANES)
    dy_rows = fill!(workspace(buffers, name, :dy_rows, padded * units), 0.0f0)
    GC.@preserve dy_rows dy transpose_block!(pointer(dy_rows), padded, pointer(dy), units, images, units)
    jobs = cld(inputs, step)
    size_ = (images + units + padded) * step
    scratch = workspace(buffers, name, :blocks, size_ * max_workers(jobs))
    values = workspace(buffers, name, :values, jobs)
    GC.@preserve scratch dy_rows weight x dy dx target foreach_job(jobs) do job, worker
        j = (job - 1) * step
        n = min(step, inputs - j)
        xs = at(pointer(scratch), (worker - 1) * size_)
        dw, dxs = at(xs, images * step), at(xs, (images + units) * step)
        w = at(pointer(weight), j * units)
        transpose_block!(xs, images, at(pointer(x), j), inputs, images, n)
        first_, second, soon = upcoming_reads(target, w, j * units, n * units)
        if dx !== nothing
            product!(Block(dxs, padded), Block(pointer(dy_rows), padded), Block(w, units), (padded, n, units), false, Val(2), (first_, soon))
            transpose_block!(at(pointer(dx), j), inputs, dxs, padded, n, images)
        end
        product!(Block(dw, units), Block(pointer(dy), units), Block(xs, images), (units, n, images), false, Val(ROWS), (second, soon))
        values[job] = apply_block!(target, w, dw, j * units, n * units)
    end
    return sum(view(values, 1:jobs))
end
