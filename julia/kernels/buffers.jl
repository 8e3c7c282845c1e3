# Arrays that one training step leaves to the next.

"""
    Buffers()

Arrays that one training step leaves to the next, by name; each is as large as the largest that was asked for.

What [`buffer`](@ref) returns points into them. It is good until the same name is asked for again, and while the `Buffers`
live: whoever makes them preserves them (`GC.@preserve`) as long as arrays of theirs are used.
"""
struct Buffers
    floats::Dict{Tuple{Symbol,Symbol},Vector{Float32}}
    bytes::Dict{Tuple{Symbol,Symbol},Vector{UInt8}}
end

Buffers() = Buffers(Dict{Tuple{Symbol,Symbol},Vector{Float32}}(), Dict{Tuple{Symbol,Symbol},Vector{UInt8}}())

function at_least(n, arrays::Dict{Tuple{Symbol,Symbol},Vector{T}}, key) where {T}
    array = get(arrays, key, nothing)
    if array === nothing || length(array) < n
        delete!(arrays, key)
        array = arrays[key] = Vector{T}(undef, n)
    end
    return array
end

wrapped(array::Vector{T}, dims::Dims{N}) where {T,N} = unsafe_wrap(Array, pointer(array), dims)::Array{T,N}

buffer(b::Buffers, name::Symbol, role::Symbol, dims...) = wrapped(at_least(prod(dims), b.floats, (name, role)), dims)
byte_buffer(b::Buffers, name::Symbol, role::Symbol, dims...) = wrapped(at_least(prod(dims), b.bytes, (name, role)), dims)

# A vector of `n` numbers or more that a kernel works in: the array itself, which lives as long as somebody holds it.
workspace(b::Buffers, name::Symbol, role::Symbol, n) = at_least(n, b.floats, (name, role))

# A layer's input gradient is read by the layer before only, so two arrays in turn do for all: the one where `dy` is not.
function gradient_buffer(b::Buffers, dy, dims::Dims)
    kept = get(b.floats, (:gradient, :first), nothing)
    role = kept !== nothing && pointer(kept) == pointer(dy) ? :second : :first
    return buffer(b, :gradient, role, dims...)
end

# What the last call of `with_buffers` left, unless the collector took it meanwhile.
const SPARE = Ref{WeakRef}()
const SPARE_LOCK = ReentrantLock()

# f(buffers), with the arrays of an earlier call if there are some that nobody uses.
function with_buffers(f::F) where {F}
    kept = @lock SPARE_LOCK begin
        value = isassigned(SPARE) ? SPARE[].value : nothing
        SPARE[] = WeakRef(nothing)
        value
    end
    buffers = kept === nothing ? Buffers() : kept::Buffers
    try
        return GC.@preserve buffers f(buffers)
    finally
        @lock SPARE_LOCK SPARE[] = WeakRef(buffers)
    end
end
