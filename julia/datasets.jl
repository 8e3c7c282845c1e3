"""
    PreparedDataset

Decoded, split images, or the features that a backbone made of them.

# Fields
- `images`: `W×H×C×N` of `UInt8`, 0 to 255, or features, `1×1×F×N` of `Float32`; memory-mapped from `images.npy` where it was
  prepared by Python.
- `labels::Vector{Int32}`: class of each image, from 0.
- `split::Vector{UInt8}`: 0 train, 1 validation, 2 test.
- `classes::Vector{String}`: names; of two classes, the second is the positive one.
- `name::String`, `fingerprint::String`: its name, and the SHA-256 of its contents.
- `about::NamedTuple`: further entries of a run's `data`, such as its `path` and the `seed` of its split.
"""
struct PreparedDataset
    images::Union{Array{UInt8,4},Array{Float32,4}}
    labels::Vector{Int32}
    split::Vector{UInt8}
    classes::Vector{String}
    name::String
    fingerprint::String
    about::NamedTuple

    function PreparedDataset(images, labels, split, classes, name, fingerprint, about=(;))
        n = size(images, 4)
        if length(labels) != n || length(split) != n
            throw(DimensionMismatch("$name: $n images, but $(length(labels)) labels and $(length(split)) split marks."))
        end
        length(classes) >= 2 || throw(ArgumentError("$name: 2 or more classes are needed; found: $(length(classes))."))
        all(in(eachindex(classes) .- 1), labels) ||
            throw(ArgumentError("$name: labels must be 0 to $(length(classes) - 1); found: $(extrema(labels))."))
        if images isa Array{Float32}
            size(images, 1) == size(images, 2) == 1 ||
                throw(DimensionMismatch("$name: features must be 1×1×F×N; received: $(join(size(images), '×'))."))
            all(isfinite, images) || throw(ArgumentError("$name: there are features that are NaN or infinite. Make them again."))
        end
        all(<=(2), split) || throw(ArgumentError("$name: split marks must be 0, 1 or 2; found: $(maximum(split))."))
        return new(images, labels, split, classes, name, fingerprint, about)
    end
end

const SPLITS = (:train, :validation, :test)

Base.length(data::PreparedDataset) = length(data.labels)

"""
    image_shape(data)

Return width, height and channels of a prepared dataset's images; of features 1, 1 and how many there are.
"""
image_shape(data::PreparedDataset) = size(data.images)[1:3]

"""
    holds_features(data)

Return whether a prepared dataset holds features and not images.
"""
holds_features(data::PreparedDataset) = data.images isa Array{Float32,4}

"""
    indices(data, part)

Return which images a part has.

# Arguments
- `data::PreparedDataset`
- `part::Symbol`: `:train`, `:validation` or `:test`.

# Returns
- `Vector{Int}`: their positions along the last dimension of `data.images`, rising.

# Throws
- `ArgumentError`: another part.
"""
function indices(data::PreparedDataset, part::Symbol)
    mark = findfirst(==(part), SPLITS)
    mark === nothing && throw(unknown_name("part", string(part), string.(SPLITS)))
    return findall(==(mark - 1), data.split)
end

function Base.show(io::IO, data::PreparedDataset)
    w, h, c = image_shape(data)
    parts = join(("$part $(length(indices(data, part)))" for part in SPLITS), ", ")
    print(io, "PreparedDataset(\"", data.name, "\", ", length(data), " images ", w, "×", h, "×", c, ", ")
    print(io, length(data.classes), " classes, ", parts, ")")
end

"""
    open_dataset(folder; seed = 42)

Open a prepared dataset by memory map, or read a folder of CIFAR-10's binary version.

# Arguments
- `folder::AbstractString`: what `photoflux prepare` wrote (`images.npy`, `labels.npy`, `split.npy`, `meta.json`), or a
  folder with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
- `seed::Integer`: for CIFAR-10, chooses the tenth of the training images of each class that becomes the validation
  part. A prepared dataset carries its split.

# Returns
- [`PreparedDataset`](@ref)

# Throws
- `ArgumentError`: the folder is missing or is neither, or a file in it is missing, truncated or of another format.
"""
function open_dataset(folder::AbstractString; seed::Integer=42)
    isdir(folder) || throw(ArgumentError("`folder` must be a prepared dataset; there is no folder: $folder"))
    isfile(joinpath(folder, "meta.json")) && return open_prepared(folder)
    isfile(joinpath(folder, "data_batch_1.bin")) && return dispatch_barrier(open_cifar10, folder; seed)::PreparedDataset
    throw(ArgumentError(
        "$folder is neither a prepared dataset (it has no meta.json) nor CIFAR-10's binary version (no " *
        "data_batch_1.bin). `photoflux prepare SOURCE DEST` makes a prepared dataset from a folder of images.",
    ))
end

function open_prepared(folder)
    path = joinpath(folder, "meta.json")
    meta = json_object(path, "; prepare the dataset again")
    version = get(meta, "format", nothing)
    version == 1 || throw(ArgumentError("$folder: prepared-dataset format $(first(repr(version), 100)); this PhotoFlux reads 1."))
    classes, name, fingerprint, about = dispatch_barrier(of_file, () -> described_by(meta, folder), path)::Tuple{Vector{String},String,String,NamedTuple}
    return PreparedDataset(
        mmap_images(joinpath(folder, "images.npy")),
        copy(mmap_npy(joinpath(folder, "labels.npy"), Vector{Int32})),
        copy(mmap_npy(joinpath(folder, "split.npy"), Vector{UInt8})),
        classes, name, fingerprint, about,
    )
end

described_by(meta, folder) = (Vector{String}(meta["classes"]), String(meta["name"]), String(meta["fingerprint"]),
    about_of(Dict{String,Any}(meta..., "path" => abspath(folder))))

# The fields of `data` in a run's run.json that say where its data is, and how it was made; those that there are.
const ABOUT = (:path, :seed, :images, :positive, :groups, :made_from)

function about_of(values)
    present = filter(name -> haskey(values, string(name)), ABOUT)
    return NamedTuple{present}(map(name -> plain(values[string(name)]), present))
end

plain(value) = value isa AbstractDict ? Dict{String,Any}(string(k) => v for (k, v) in value) : value

const NPY_CODES = Dict(UInt8 => "|u1", Int32 => "<i4", Float32 => "<f4")

# numpy/lib/format.py: magic, version, header length, a Python dict, then the data. A C-order (N, C, H, W) array is, read
# in Julia's column order, a W×H×C×N one: the same bytes, no copy.
function mmap_npy(path, ::Type{Array{T,dimensions}}) where {T,dimensions}
    return open_npy(path) do io, (; code, order, shape, sizes), wrong
        if code != NPY_CODES[T] || order != "False" || length(sizes) != dimensions
            wrong("holds $code of shape ($shape); expected C-order $(NPY_CODES[T]) of $dimensions dimensions")
        end
        # Of such lengths as a file may name the product need not fit into an Int.
        needed = position(io) + prod(big, sizes; init=big(1)) * sizeof(T)
        filesize(path) < needed && wrong("is truncated: $(filesize(path)) bytes of $needed")
        0 in sizes && return Array{T,dimensions}(undef, ntuple(_ -> 0, Val(dimensions)))
        dims = ntuple(i -> sizes[end + 1 - i], Val(dimensions))
        # An array in memory must be aligned; NumPy's own headers are.
        position(io) % sizeof(T) == 0 || return read!(io, Array{T,dimensions}(undef, dims))
        return Mmap.mmap(io, Array{T,dimensions}, dims, position(io))
    end
end

# NumPy reads no longer ones.
const MAX_NPY_HEADER = 10_000

# read(io, header, wrong), with `io` behind the header of a .npy file.
function open_npy(read_array, path)
    wrong(what) = throw(ArgumentError("$path $what; prepare the dataset again."))
    isfile(path) || wrong("is missing")
    return open(path) do io
        read(io, 6) == b"\x93NUMPY" || wrong("is not a .npy file")
        version = read(io, 2)
        length_bytes = read(io, first(version, 1) == [0x01] ? 2 : 4)
        length_ = foldr((byte, n) -> n << 8 | byte, length_bytes; init=0)
        length_ <= MAX_NPY_HEADER || wrong("has a header of $length_ bytes")
        bytes = read(io, length_)
        all(<(0x80), bytes) || wrong("has a header that cannot be read")
        header = String(bytes)
        code = match(r"'descr': '([^']+)'", header)
        order = match(r"'fortran_order': (True|False)", header)
        shape = match(r"'shape': \(([\d, ]*)\)", header)
        any(isnothing, (code, order, shape)) && wrong("has a header that cannot be read")
        sizes = [tryparse(Int, s) for s in split(shape[1], r",\s*"; keepempty=false)]
        any(isnothing, sizes) && wrong("has a header that cannot be read")
        sizes = Vector{Int}(sizes)
        return read_array(io, (; code=code[1], order=order[1], shape=shape[1], sizes), wrong)
    end
end

# Images are bytes, and features (N, F, 1, 1) of Float32.
function mmap_images(path)
    features = open_npy((_, header, _) -> header.code == NPY_CODES[Float32] && header.sizes[3:end] == [1, 1], path)
    return features ? mmap_npy(path, Array{Float32,4}) : mmap_npy(path, Array{UInt8,4})
end

const CIFAR10_CLASSES =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
const CIFAR10_RECORD = 1 + 3 * 32 * 32

function open_cifar10(folder; seed)
    train = [read_cifar10_batch(joinpath(folder, "data_batch_$i.bin")) for i in 1:5]
    images, labels = cat(first.(train)...; dims=4), reduce(vcat, last.(train))
    test = read_cifar10_batch(joinpath(folder, "test_batch.bin"))
    made_from = Dict{String,Any}("kind" => "cifar10", "path" => abspath(folder), "positive" => "auto",
        "image_size" => nothing, "groups" => nothing, "seed" => seed)
    return dataset_of((images, labels), test, CIFAR10_CLASSES; name="cifar10", seed, about=(; made_from))
end

# A record is a label byte and 3072 bytes, channel by channel, row by row.
function read_cifar10_batch(path)
    isfile(path) || throw(ArgumentError("CIFAR-10's binary version needs the file $path, which is missing."))
    bytes = read(path)
    if isempty(bytes) || length(bytes) % CIFAR10_RECORD != 0
        throw(ArgumentError("$path: $(length(bytes)) bytes are no whole number of records of $CIFAR10_RECORD; it is " *
                            "truncated or not CIFAR-10's binary version."))
    end
    records = reshape(bytes, CIFAR10_RECORD, :)
    return reshape(records[2:end, :], 32, 32, 3, :), Vector{Int32}(records[1, :])
end

"""
    dataset_of(train, test, classes; name, seed = 42, about = (;))

Make a prepared dataset in memory from arrays; a tenth of the training images of each class becomes the validation part.
Python makes the same parts, and the same fingerprint, of the same images.

# Arguments
- `train`, `test`: tuples of images, `W×H×C×N` of `UInt8`, and labels, integers from 0.
- `classes::Vector{String}`: their names.
- `name::AbstractString`: its name.
- `seed::Integer`: chooses the validation part.
- `about::NamedTuple`: further entries of a run's `data`.

# Returns
- [`PreparedDataset`](@ref)

# Throws
- `ArgumentError`, `DimensionMismatch`: labels that do not fit images or classes.
"""
function dataset_of((x, y), (x_test, y_test), classes; name, seed::Integer=42, about=(;))
    size(x, 4) == length(y) || throw(DimensionMismatch("$name: $(size(x, 4)) training images, but $(length(y)) labels."))
    split = [split_tenth(y, equal_images(x), seed); fill(0x02, length(y_test))]
    images, labels = cat(x, x_test; dims=4), Int32[y; y_test]
    about = (; path=nothing, seed, images=length(labels), positive=nothing, groups=nothing, about...)
    return PreparedDataset(images, labels, split, classes, name, fingerprint_of(images, labels, split, classes), about)
end

# For each image the position of the first that is equal to it.
function equal_images(images)
    first_of = Dict{Vector{UInt8},Int}()
    return [get!(first_of, sha256(vec(images[:, :, :, n])), n) for n in axes(images, 4)]
end

# The rule of Python's `photoflux.data.splitting.split_tenth`; positions count from 0 there.
function split_tenth(labels, groups, seed)
    validates, sizes = zeros(UInt8, length(labels)), Dict{Int,Int}()
    foreach(group -> sizes[group] = get(sizes, group, 0) + 1, groups)
    for class in unique(labels)
        members = filter(group -> labels[group] == class, unique(groups))
        length(members) < 2 && continue
        left = max((sum(group -> sizes[group], members) + 5) ÷ 10, 1)
        for group in members[sortperm([sha256("$seed:$(group - 1)") for group in members])]
            sizes[group] <= left || continue
            validates[groups .== group] .= 1
            left -= sizes[group]
        end
    end
    return validates
end

# As Python's `PreparedWriter` computes it: pixels, labels, split, and a line of JSON.
function fingerprint_of(images, labels, split, classes)
    w, h, c = size(images)
    context = SHA.SHA2_256_CTX()
    for bytes in (vec(images), reinterpret(UInt8, htol.(labels)), split,
        codeunits("[[" * join(ascii_json.(classes), ", ") * "], null, [$c, $h, $w]]"))
        SHA.update!(context, bytes)
    end
    return bytes2hex(SHA.digest!(context))
end

# A string as Python's json.dumps writes it.
function ascii_json(text)
    escaped(character) = join("\\u" * string(unit; base=16, pad=4) for unit in transcode(UInt16, String(character)))
    return replace(JSON.json(String(text)), r"[^ -~]" => escaped)
end
