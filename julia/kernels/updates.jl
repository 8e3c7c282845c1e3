# What becomes of a weight's gradient. Kernels give it, in blocks as soon as they are made or whole, to a target of the caller.

const BLOCK = 8192    # weights of a block

"""
    apply_block!(target, w, dw, offset, n)

Store or apply `n` values of a weight's gradient, at `offset` in the weight. The caller of a kernel defines it for its target.

# Arguments
- `w`, `dw`: pointers to those values of the weight and of its gradient.

# Returns
- `Float32`: a value of these weights before they changed, such as their penalty; kernels return the sum.
"""
function apply_block! end

"""
    upcoming_reads(target, w, offset, n)

Return two pointers from which [`apply_block!`](@ref) is going to read beside the weight and its gradient, and how many values at
each; kernels ask for them ahead.
"""
upcoming_reads(target, w, offset, n) = (w, w, 0)

"""
    apply_gradient!(target, w, dw)

Give a whole gradient to `target`, in blocks that the threads share; return the sum of what [`apply_block!`](@ref) returns.
"""
function apply_gradient!(target, w::Array{Float32}, dw::Array{Float32})
    jobs = cld(length(w), BLOCK)
    jobs == 1 && return GC.@preserve w dw apply_block!(target, pointer(w), pointer(dw), 0, length(w))
    values = Vector{Float32}(undef, jobs)
    GC.@preserve w dw foreach_job(jobs) do job, _
        offset = (job - 1) * BLOCK
        n = min(BLOCK, length(w) - offset)
        values[job] = apply_block!(target, at(pointer(w), offset), at(pointer(dw), offset), offset, n)
    end
    return sum(values)
end

# What all threads sum, they sum in groups of units of work, and then the groups in their order. The number of groups depends on
# the work and not on the threads: enough for many threads, and so few that their sums cost little beside the work.
const PIXELS_OF_GROUP = 2^11
const WEIGHTS_OF_GROUP = 2^19
groups_of(work, size, units) = clamp(work ÷ size, 1, units)

# The units of a group, counted from 0.
units_of(group, groups, units) = ((group - 1) * units ÷ groups):(group * units ÷ groups - 1)

# The first n of `to`: the sums of the groups' values, n of each, in the groups' order.
function sum_groups!(to::Array{Float32}, n, values::Vector{Float32}, groups)
    foreach_range(n, 2^12) do range
        @inbounds for group in 1:groups
            @simd for i in range
                to[i] = (group == 1 ? 0.0f0 : to[i]) + values[(group - 1) * n + i]
            end
        end
    end
    return to
end
