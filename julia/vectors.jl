# Vectors of Float32 as wide as the processor's, and the threads' work list: what the kernels of conv.jl and dense.jl are
# made of. The width is fixed when the package is precompiled, which Julia does anew for another kind of processor.
const LANES = if Sys.ARCH === :x86_64
    Base.BinaryPlatforms.CPUID.test_cpu_feature(Base.BinaryPlatforms.CPUID.JL_X86_avx512f) ? 16 : 8
else
    4
end

# Sums held in registers at a time, of 32 registers or of the 16 that x86 has without AVX-512.
const MANY_REGISTERS = LANES != 8

const Vec = NTuple{LANES,VecElement{Float32}}

@eval begin
    @inline splat(x::Float32) = Base.llvmcall(
        $("""
        %a = insertelement <$LANES x float> undef, float %0, i32 0
        %b = shufflevector <$LANES x float> %a, <$LANES x float> undef, <$LANES x i32> zeroinitializer
        ret <$LANES x float> %b"""), Vec, Tuple{Float32}, x)
    # Not maxnum, which would hide a NaN.
    @inline positive(v::Vec) = Base.llvmcall(
        $("""
        %c = fcmp olt <$LANES x float> %0, zeroinitializer
        %r = select <$LANES x i1> %c, <$LANES x float> zeroinitializer, <$LANES x float> %0
        ret <$LANES x float> %r"""), Vec, Tuple{Vec}, v)
    @inline muladd_vec(a::Vec, b::Vec, c::Vec) =
        ccall($("llvm.fmuladd.v$(LANES)f32"), llvmcall, Vec, (Vec, Vec, Vec), a, b, c)
end

# Pointers count in bytes; `at` counts in Float32.
@inline at(p::Ptr{Float32}, n::Integer) = p + 4n
@inline load_vec(p::Ptr{Float32}) = unsafe_load(Ptr{Vec}(p))
@inline store_vec(p::Ptr{Float32}, v::Vec) = unsafe_store!(Ptr{Vec}(p), v)

# The first n lanes only.
function store_vec(p::Ptr{Float32}, v::Vec, n::Integer)
    n >= LANES && return store_vec(p, v)
    for i in 1:n
        unsafe_store!(p, v[i].value, i)
    end
end

function sum_lanes(p::Ptr{Float32})
    total = 0.0f0
    @simd for i in 1:LANES
        total += unsafe_load(p, i)
    end
    return total
end

function clear!(p::Ptr{Float32}, n::Integer)
    @simd ivdep for i in 1:n
        unsafe_store!(p, 0.0f0, i)
    end
end

blocks(n::Integer, size::Integer) = cld(n, size) * size

# Calls work(job, worker) for every job; a thread takes the next one when it is free, because cores are seldom all idle.
# What is summed is summed per job and then in the jobs' order, so that no result depends on the threads.
function share(work::F, jobs::Integer) where {F}
    workers = min(jobs, Threads.nthreads())
    workers <= 1 && return foreach(job -> work(job, 1), 1:jobs)
    next = Threads.Atomic{Int}(1)
    @sync for worker in 1:workers
        Threads.@spawn while true
            job = Threads.atomic_add!(next, 1)
            job <= jobs || break
            work(job, worker)
        end
    end
    return nothing
end

"""
    Buffers()

Arrays that one training step leaves to the next, by name; each is as large as the largest that was asked for.

What [`buffer`](@ref) returns points into it and is good until the same name is asked for again.
"""
struct Buffers
    arrays::Dict{Tuple{Symbol,Symbol},Vector{Float32}}
    bytes::Dict{Tuple{Symbol,Symbol},Vector{UInt8}}
end

Buffers() = Buffers(Dict(), Dict())

function buffer(arrays::Dict{Tuple{Symbol,Symbol},Vector{T}}, key, dims::Dims{N}) where {T,N}
    n = prod(dims)
    array = get(arrays, key, nothing)
    if array === nothing || length(array) < n
        delete!(arrays, key)
        array = arrays[key] = Vector{T}(undef, n)
    end
    return unsafe_wrap(Array, pointer(array), dims)::Array{T,N}
end

buffer(b::Buffers, name::Symbol, role::Symbol, dims...) = buffer(b.arrays, (name, role), dims)
byte_buffer(b::Buffers, name::Symbol, role::Symbol, dims...) = buffer(b.bytes, (name, role), dims)
