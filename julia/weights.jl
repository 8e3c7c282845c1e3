# safetensors (https://huggingface.co/docs/safetensors): a little-endian UInt64 with the length of a JSON header, the
# header, the data. Arrays on disk are C-ordered and in Keras' layout: (kh, kw, in, out) for a convolution, (in, out) for
# Dense, flattened in the order (h, w, c). Read in Julia's column order, the dimensions come reversed: an array here is
# always "Keras' layout, reversed".

const WEIGHTS_FORMAT = "photoflux-weights-1"
const MAX_HEADER = 100_000_000

"""
    canonical_weights(model, layers)

Return the weights as they are stored: pairs of a name (`"conv1.kernel"`, `"conv1.bias"`, `"standardise.mean"`,
`"standardise.deviation"`, …) and an array of `Float32` in Keras' layout with the dimensions reversed, because Julia's arrays are column-major.

# Arguments
- `model::Chain`: of [`build_model`](@ref).
- `layers`: its [`layers`](@ref); of a network of a user's own the arrays are as Flux has them, named by their layers.
"""
function canonical_weights(model::Chain, list)
    measured = [pair for name in standardisations(list) for pair in
        ("$name.mean" => Array(model[name].mean), "$name.deviation" => Array(model[name].deviation))]
    return Pair{String,Array{Float32}}[measured; canonical_arrays(name -> (model[name].weight, model[name].bias), list)]
end

# Also for what has the shape of the weights: gradients and moments.
function canonical_arrays(arrays_of, list)
    pairs = Pair{String,Array{Float32}}[]
    for name in kernels(list)
        kernel, bias = arrays_of(name)
        push!(pairs, "$name.kernel" => to_keras(kernel, flattened(list, name)), "$name.bias" => Array(bias))
    end
    return pairs
end

# What is flattened before this layer, (width, height, channels); nothing where it is not the one behind the flattening.
function flattened(list, name)
    behind = findfirst(layer -> layer.kind == "flatten", list) + 1
    return list[behind].name === name ? list[behind - 2].shape : nothing
end

# Flux's (kw, kh, in, out) ↔ reversed Keras (out, in, kw, kh); the Dense layer behind the flattening counts its inputs in
# the order (w, h, c) in Flux and (c, w, h) in reversed Keras.
function to_keras(kernel, shape)
    kernel = Array{Float32}(kernel)
    ndims(kernel) == 4 && return permutedims(kernel, (4, 3, 1, 2))
    shape === nothing && return kernel
    return reshape(permutedims(reshape(kernel, :, shape...), (1, 4, 2, 3)), size(kernel))
end

function to_flux(stored, shape)
    ndims(stored) == 4 && return permutedims(stored, (3, 4, 2, 1))
    shape === nothing && return stored
    w, h, c = shape
    return reshape(permutedims(reshape(stored, :, c, w, h), (1, 3, 4, 2)), size(stored))
end

# Names and shapes of the weights as Keras has them.
function stored_shapes(list)
    shapes = Pair{String,Dims}[]
    for (; name, shape) in filter(layer -> layer.kind == "standardisation", list)
        push!(shapes, "$name.mean" => (last(shape),), "$name.deviation" => (last(shape),))
    end
    for (; name, weight) in filter(layer -> !isempty(layer.weight), list)
        kernel = length(weight) == 4 ? weight[[2, 1, 3, 4]] : reverse(weight)
        push!(shapes, "$name.kernel" => kernel, "$name.bias" => kernel[end:end])
    end
    return shapes
end

"""
    write_weights(path, model, layers; metadata = Dict())

Write a model's weights as safetensors in Keras' layout: to a temporary file first, then renamed.

# Arguments
- `path::AbstractString`
- `model::Chain`, `layers::Vector{Layer}`: of [`build_model`](@ref) and [`layers`](@ref).
- `metadata::AbstractDict`: strings for the file's header, such as the variant's name.

# Returns
- `path`

# Throws
- `SystemError`: the file cannot be written; an older file of that name is left as it was.
"""
function write_weights(path::AbstractString, model::Chain, list; metadata=Dict{String,String}())
    return write_arrays(path, canonical_weights(model, list); metadata=merge(Dict("format" => WEIGHTS_FORMAT), metadata))
end

function write_arrays(path, pairs; metadata=Dict{String,String}())
    header, offset = Dict{String,Any}("__metadata__" => metadata), 0
    for (name, array) in pairs
        ending = offset + sizeof(array)
        header[name] = Dict("dtype" => DTYPES[eltype(array)], "shape" => shape_in_keras(array), "data_offsets" => [offset, ending])
        offset = ending
    end
    json = dispatch_barrier(JSON.json, header)::String
    json *= " "^mod(-ncodeunits(json), 8)
    return replace_file(path) do io
        write(io, htol(UInt64(ncodeunits(json))), json)
        foreach(pair -> write_array(io, little_endian(last(pair))), pairs)
    end
end

# Where the disk is full, Julia writes a part of a large array, and says so by the number of bytes alone.
function write_array(io, array)
    Base.systemerror("write", write(io, array) != sizeof(array))
    return nothing
end

little_endian(array) = ENDIAN_BOM == 0x04030201 ? array : htol.(array)

const DTYPES = Dict(Float32 => "F32", UInt64 => "U64")

shape_in_keras(array) = dispatch_barrier(reverse, size(array))

"""
    read_weights(path)

Read a safetensors file of `Float32` arrays, checking every offset and size.

# Arguments
- `path::AbstractString`

# Returns
- `Dict{String,Array{Float32}}`: by name, dimensions reversed as in [`canonical_weights`](@ref).
- `Dict{String,String}`: the metadata of its header.

# Throws
- `ArgumentError`: the file is missing, truncated, or not a safetensors file of `Float32` arrays.
"""
function read_weights(path::AbstractString)
    isfile(path) || throw(ArgumentError("There is no weights file $path."))
    return read_tensors(path, Float32, "a weights file")
end

# Reads arrays of one type, all or only those of the names given.
function read_tensors(path, ::Type{T}, kind; only=nothing) where {T}
    wrong(what) = throw(ArgumentError("$path is not $kind of PhotoFlux: $what."))
    total = filesize(path)
    total >= 8 || wrong("it has $total bytes")
    return open(path) do io
        length_ = ltoh(read(io, UInt64))
        length_ <= min(MAX_HEADER, total - 8) || wrong("it is truncated or its header's length is wrong")
        header = try
            parse_json(String(read(io, Int(length_))))
        catch err
            err isa InterruptException && rethrow()
            wrong("its header is not JSON")
        end
        header isa AbstractDict || wrong("its header is not a JSON object")
        metadata = get(header, "__metadata__", Dict{String,String}())
        metadata isa AbstractDict && all(value -> value isa AbstractString, values(metadata)) ||
            wrong("its metadata is not a table of texts")
        start = position(io)
        entries = Dict(String(name) => dispatch_barrier(tensor_entry, entry, name, total - start, wrong)::TensorEntry
            for (name, entry) in header if name != "__metadata__")
        check_places(entries, total - start, wrong)
        wanted = filter(((name, _),) -> only === nothing || name in only, entries)
        for (name, entry) in wanted
            check_size(entry, name, T, wrong)
        end
        arrays = Dict{String,Array{T}}()
        for (name, (; shape, from, to)) in wanted
            seek(io, start + from)
            arrays[name] = dispatch_barrier(read_array, io, shape, T)::Array{T}
            position(io) == start + to || wrong("$name is truncated")
        end
        return arrays, Dict{String,String}(String(name) => String(value) for (name, value) in metadata)
    end
end

function read_array(io, shape, ::Type{T}) where {T}
    array = read!(io, Array{T}(undef, reverse(shape)...))
    return ENDIAN_BOM == 0x04030201 ? array : map(ltoh, array)
end

# What the header says of an array: its type, its shape in Keras' order, and its first byte and the one behind its last.
struct TensorEntry
    dtype::String
    shape::Vector{Int}
    from::Int
    to::Int
end

# No array of ours has as many axes; each other number of them is a type that Julia compiles for.
const MAX_AXES = 8

function tensor_entry(entry, name, available, wrong)
    entry isa AbstractDict && all(in(keys(entry)), ("dtype", "shape", "data_offsets")) || wrong("no entry for $name")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    natural(values) = values isa AbstractVector && all(n -> n isa Integer && !(n isa Bool) && n >= 0, values)
    dtype isa AbstractString || wrong("the type of $name cannot be read")
    natural(shape) && length(shape) <= MAX_AXES && natural(offsets) && length(offsets) == 2 || wrong("the shape or place of $name cannot be read")
    # A length is not larger than the file where it holds a number; where it holds none, it is of no use.
    offsets[1] <= offsets[2] <= available && all(<=(typemax(Int32)), shape) || wrong("$name does not lie in the file; it is truncated")
    return TensorEntry(dtype, shape, offsets...)
end

function check_size((; dtype, shape, from, to), name, ::Type{T}, wrong) where {T}
    dtype == DTYPES[T] || wrong("$name is $dtype; expected $(DTYPES[T])")
    to - from == sizeof(T) * prod(big, shape; init=big(1)) || wrong("$name does not lie in the file; it is truncated")
end

# One after another, without a gap: arrays over one another would make of a small file any amount of memory.
function check_places(entries, available, wrong)
    reached = 0
    for (; from, to) in sort!(collect(values(entries)); by=entry -> (entry.from, entry.to))
        from == reached || wrong("its arrays do not lie one after another")
        reached = to
    end
    reached == available || wrong("it has $(available - reached) bytes behind its last array")
end

"""
    load_weights!(model, arrays, layers; source = "the weights")

Copy stored weights into a model.

# Arguments
- `model::Chain`, `layers::Vector{Layer}`: of [`build_model`](@ref) and [`layers`](@ref).
- `arrays::AbstractDict`: of [`read_weights`](@ref); or the path of a weights file.
- `source::AbstractString`: what the error names.

# Returns
- `model`

# Throws
- `DimensionMismatch`: other names or shapes than the model's, as in a file of another variant; both are listed.
- `ArgumentError`: a weight is NaN or infinite.
"""
function load_weights!(model::Chain, arrays::AbstractDict, list; source="the weights")
    check_fit(arrays, list, source)
    return copy_stored!(model, arrays, list)
end

function copy_stored!(model, arrays, list::Vector{Layer})
    for name in standardisations(list)
        copyto!(model[name].mean, arrays["$name.mean"])
        copyto!(model[name].deviation, arrays["$name.deviation"])
    end
    for name in kernels(list)
        copyto!(model[name].weight, to_flux(arrays["$name.kernel"], flattened(list, name)))
        copyto!(model[name].bias, arrays["$name.bias"])
    end
    return model
end

model_of(list::Vector{Layer}, arrays) = copy_stored!(build_model(list), arrays, list)

function load_weights!(model::Chain, path::AbstractString, list)
    return load_weights!(model, first(read_weights(path)), list; source="the weights in $path")
end

function check_fit(arrays, list, source)
    expected = stored_shapes(list)
    found = Dict(name => shape_in_keras(array) for (name, array) in arrays)
    if Dict(expected) != found
        throw(DimensionMismatch("$source do not fit this model:\n" * side_by_side(found, expected)))
    end
    for (name, array) in arrays
        all(isfinite, array) || throw(ArgumentError("$source: $name has values that are not finite (NaN or infinite). Train again."))
    end
    return nothing
end

"""
    load_model(path, layers)

Return the model of a weights file; it is built when the file is known to fit, so that memory is taken only for weights that are there.

# Throws
- `ArgumentError`, `DimensionMismatch`: as of [`read_weights`](@ref) and [`load_weights!`](@ref).
"""
function load_model(path::AbstractString, list)
    arrays, source = first(read_weights(path)), "the weights in $path"
    check_fit(arrays, list, source)
    return model_of(list, arrays)
end

# Two lists of names and shapes as a table; rows that differ are marked.
function side_by_side(found, expected)
    shapes = Dict(expected)
    names = [first.(expected); sort!(filter(!in(keys(shapes)), collect(keys(found))))]
    entry(sides, name) = haskey(sides, name) ? "$name $(sides[name])" : "–"
    rows = [(entry(found, name), entry(shapes, name)) for name in names]
    width = maximum(textwidth(left) for (left, _) in [("in the file", ""); rows])
    lines = [(left == right ? "    " : "  ≠ ") * rpad(left, width + 3) * right for (left, right) in rows]
    return join([" "^4 * rpad("in the file", width + 3) * "expected"; lines], '\n')
end

"""
    fingerprint(model, layers)

Return the sha256 of a model's weights as they are stored ([`canonical_weights`](@ref)), first layer to last, kernel
before bias, mean before deviation.
"""
function fingerprint(model::Chain, list)
    arrays = last.(canonical_weights(model, list))
    return bytes2hex(sha256(reduce(vcat, (reinterpret(UInt8, htol.(vec(array))) for array in arrays))))
end
