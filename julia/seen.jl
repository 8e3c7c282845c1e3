# The images that weights have been trained or validated on, so that none is scored as an unseen one. Python writes and reads the
# same file, and identifies images by their files too.

const SEEN_FORMAT = "photoflux-seen-1"

# The training and validation parts of `data`, and `before`, the images that the initial weights had seen. The images are hashed
# on demand: `train` and `validation` then hold the first 8 bytes of the SHA-256 of each.
mutable struct Seen
    data::Union{Nothing,PreparedDataset}
    before::Union{Nothing,Seen}
    train::Vector{UInt64}
    validation::Vector{UInt64}
    unknown::String  # why there may be other images, in words; empty: there are none
end

Seen(; unknown="") = Seen(nothing, nothing, UInt64[], UInt64[], unknown)
Seen(data::PreparedDataset, before) = Seen(data, before, UInt64[], UInt64[], before === nothing ? "" : before.unknown)

function known!(seen::Seen)
    data, before = seen.data, seen.before
    if data !== nothing
        seen.train, seen.validation = (identities(data, indices(data, part)) for part in (:train, :validation))
        seen.data = nothing
    end
    if before !== nothing
        known!(before)
        append!(seen.train, before.train)
        append!(seen.validation, before.validation)
        seen.before = nothing
    end
    foreach(ids -> unique!(sort!(ids)), (seen.train, seen.validation))
    return seen
end

function identities(data::PreparedDataset, chosen)
    ids = Vector{UInt64}(undef, length(chosen))
    Threads.@threads for i in eachindex(chosen)
        bytes = reinterpret(UInt8, vec(data.images[:, :, :, chosen[i]]))
        ids[i] = ntoh(first(reinterpret(UInt64, sha256(bytes))))
    end
    return ids
end

# The images that the initial weights had seen.
seen_before(::Nothing) = nothing

function seen_before(path::AbstractString)
    isdir(path) && return read_seen(path)
    folder = dirname(abspath(path))
    basename(path) == "weights.safetensors" && isfile(joinpath(folder, "run.json")) && return read_seen(folder)
    return Seen(; unknown="$path is a weights file and no run, and does not say it")
end

function write_seen(folder, seen::Seen)
    known!(seen)
    pairs = ["train" => seen.train, "validation" => seen.validation]
    metadata = Dict("format" => SEEN_FORMAT, "unknown" => seen.unknown)
    return write_arrays(joinpath(folder, "seen.safetensors"), pairs; metadata)
end

function read_seen(folder)
    path = joinpath(folder, "seen.safetensors")
    isfile(path) || return Seen(; unknown="$folder does not say it")
    arrays, metadata = read_tensors(path, UInt64, "a list of seen images"; only=("train", "validation"))
    if get(metadata, "format", "") != SEEN_FORMAT || length(arrays) < 2
        throw(ArgumentError("$path is not a list of seen images; this PhotoFlux reads $SEEN_FORMAT."))
    end
    return Seen(nothing, nothing, vec(arrays["train"]), vec(arrays["validation"]), get(metadata, "unknown", ""))
end
