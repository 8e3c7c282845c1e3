# Changes valid safetensors and .npy files at random and reads them. Each must give the numbers that stand in it, or an ArgumentError: no
# other exception, no crash, no more memory than MOST_MEMORY. The suite runs a few (tests/julia/hostile.jl); by hand
#
#     julia --project=... tests/fuzz/readers.jl 100000 [SEED]
#
# changes as many of each and prints what came of them.
module ReaderFuzz

using PhotoFlux
using PhotoFlux: JSON, mmap_images, mmap_npy, read_tensors, write_arrays
using Random: Xoshiro

const MOST_MEMORY = 64 * 2^20  # bytes for one file of a few hundred
# What a value of a header may be instead.
const ODD = Any[nothing, true, 0, -1, 1, 2, 7, 2^31, 2^40, 2^62, typemax(Int), big(2)^70, 1.5, 1e308, "", "F32", "F64", "U64", "x", "\n", [], [0], [0, 4],
    [4, 0], [2^62, 4], fill(1, 9), fill(1, 2000), [nothing], ["a"], [[1]], Dict(), Dict("a" => 1)]

little(number, bytes) = UInt8[(number >> 8i) & 0xff for i in 0:(bytes - 1)]

# ---- what any file may suffer ----

function flipped(bytes, rng)
    bytes = copy(bytes)
    for _ in 1:rand(rng, 1:6)
        i = rand(rng, Bool) ? rand(rng, eachindex(bytes)) : rand(rng, 1:min(64, length(bytes)))
        bytes[i] ⊻= UInt8(1) << rand(rng, 0:7)
    end
    return bytes
end

cut(bytes, rng) = bytes[1:rand(rng, 0:(length(bytes) - 1))]
longer(bytes, rng) = [bytes; rand(rng, UInt8, rand(rng, 1:40))]
noise(_, rng) = rand(rng, UInt8, rand(rng, 0:300))

function shifted(bytes, rng)
    i = rand(rng, eachindex(bytes))
    return rand(rng, Bool) ? [bytes[1:i]; rand(rng, UInt8, rand(rng, 1:9)); bytes[(i + 1):end]] : deleteat!(copy(bytes), i)
end

# ---- safetensors ----

with_header(text, data) = UInt8[little(UInt64(ncodeunits(text)), 8); codeunits(text); data]

function parts(bytes)
    n = only(reinterpret(UInt64, bytes[1:8]))
    return JSON.parse(String(bytes[9:(8 + n)])), bytes[(9 + n):end]
end

function other_length(bytes, rng)
    n = rand(rng, Bool) ? UInt64(length(bytes) - 8 + rand(rng, -20:20)) : rand(rng, UInt64) >> rand(rng, 0:63)
    return [little(n, 8); bytes[9:end]]
end

# One value of the header is another, wherever it stands.
function other_value(bytes, rng)
    header, data = parts(bytes)
    header = Dict{String,Any}(header)
    name = rand(rng, collect(keys(header)))
    entry = Dict{String,Any}(header[name])
    field = isempty(entry) ? "x" : rand(rng, collect(keys(entry)))
    if rand(rng) < 0.2
        header[name] = rand(rng, ODD)
    elseif get(entry, field, nothing) isa AbstractVector && rand(rng, Bool)
        values = Any[entry[field]...]
        isempty(values) || (values[rand(rng, eachindex(values))] = rand(rng, ODD))
        header[name] = merge(entry, Dict(field => values))
    else
        header[name] = merge(entry, Dict(field => rand(rng, ODD)))
    end
    rand(rng) < 0.1 && delete!(header, name)
    return with_header(JSON.json(header), data)
end

# Arrays change places, lie over one another, or take what is another's; and one may be named as often as one likes.
function other_places(bytes, rng)
    header, data = parts(bytes)
    header = Dict{String,Any}(header)
    names = filter(!=("__metadata__"), collect(keys(header)))
    a, b = rand(rng, names), rand(rng, names)
    if rand(rng, Bool)
        for number in 1:rand(rng, 1:50)
            header["$a$number"] = header[a]
        end
    else
        first_, second = (Dict{String,Any}(header[name]) for name in (a, b))
        first_["data_offsets"], second["data_offsets"] = second["data_offsets"], first_["data_offsets"]
        header[a], header[b] = first_, second
    end
    return with_header(JSON.json(header), data)
end

function nested(bytes, rng)
    _, data = parts(bytes)
    return with_header(rand(rng, ("[", "{\"a\":", "{\"a\":{\"shape\":["))^rand(rng, 1:3000), data)
end

twice(bytes, rng) = (n = only(reinterpret(UInt64, bytes[1:8])); with_header(replace(String(bytes[9:(8 + n)]), "\"b\"" => "\"a\""), bytes[(9 + n):end]))

# The numbers of an array by what the header says, without the reader.
function check_tensors(found, bytes, ::Type{T}) where {T}
    arrays, _ = found
    header, data = parts(bytes)
    sum(sizeof, values(arrays); init=0) <= length(data) || error("more numbers than bytes")
    for (name, array) in arrays
        from, to = header[name]["data_offsets"]
        reinterpret(UInt8, vec(array)) == data[(from + 1):to] || error("$name is not what stands in the file")
        collect(reverse(size(array))) == header[name]["shape"] || error("$name has another shape")
    end
end

# ---- .npy ----

const NPY_HEAD = b"\x93NUMPY"

function npy(code, shape, data; version=1, order="False", before="", after="")
    text = "$before{'descr': '$code', 'fortran_order': $order, 'shape': ($shape), }$after"
    text = rpad(text, 64 * cld(10 + length(text) + 1, 64) - 11) * "\n"
    return UInt8[NPY_HEAD; version; 0; little(ncodeunits(text), version == 1 ? 2 : 4); codeunits(text); data]
end

npy_data(bytes) = bytes[((bytes[7] == 1 ? 10 : 12) + npy_length(bytes) + 1):end]
npy_length(bytes) = foldr((byte, n) -> n << 8 | byte, bytes[9:(bytes[7] == 1 ? 10 : 12)]; init=0)

# Lengths whose product is small only because it does not fit into 64 bits.
function wrapping(rng, small)
    while true
        a = rand(rng, UInt64) >> 1 | 0x1
        b = UInt64(invmod(big(a), big(2)^64)) * UInt64(small)
        b <= typemax(Int) && return Int(a), Int(b)
    end
end

function other_shape(bytes, rng)
    lengths = Any[rand(rng, (0, 1, 2, 3, 4, -1, 2^31, 2^32, 2^62, typemax(Int), big(2)^64, "", " ", "1 2", "x")) for _ in 1:rand(rng, 0:6)]
    if rand(rng) < 0.3
        a, b = wrapping(rng, rand(rng, 1:48))
        lengths = Any[a, b, 1, 1][1:rand(rng, (2, 4))]
    end
    code = rand(rng, ("|u1", "<i4", "<f4", "|u1", "<f8", "|O", ">i4", ""))
    return npy(code, join(lengths, ", ") * rand(rng, ("", ",")), npy_data(bytes); version=rand(rng, (1, 1, 2, 3, 255)),
        order=rand(rng, ("False", "False", "True", "None")), before=rand(rng, ("", "", "é", "\x00")), after=rand(rng, ("", "", "'shape': (1,)", "x"^9000)))
end

function other_npy_length(bytes, rng)
    bytes = copy(bytes)
    bytes[9:10] = rand(rng, UInt8, 2)
    rand(rng) < 0.3 && (bytes[7] = rand(rng, UInt8))
    return bytes
end

function check_npy(found, bytes, ::Type)
    data = npy_data(bytes)
    sizeof(found) <= length(data) || error("more numbers than bytes")
    reinterpret(UInt8, vec(found)) == data[1:sizeof(found)] || error("not what stands in the file")
end

# ---- the loop ----

read_weights_file(path) = read_tensors(path, Float32, "a weights file")
read_seen_file(path) = read_tensors(path, UInt64, "a list"; only=("train",))

function samples(folder)
    path = joinpath(folder, "sample")
    weights = read(write_arrays(path, ["a" => Float32[1 2; 3 4; 5 6], "b" => Float32[7], "c" => ones(Float32, 0, 3), "d" => rand(Xoshiro(1), Float32, 2, 3, 1, 2)];
        metadata=Dict("format" => "x")))
    seen = read(write_arrays(path, ["train" => UInt64[1, 2, 3], "validation" => UInt64[4]]; metadata=Dict("format" => "x")))
    of_safetensors = (flipped, cut, longer, noise, shifted, other_length, other_value, other_value, other_places, nested, twice)
    of_npy = (flipped, cut, longer, noise, shifted, other_shape, other_shape, other_npy_length)
    images = npy("|u1", "2, 3, 2, 2", UInt8.(1:24))
    labels = npy("<i4", "4,", reinterpret(UInt8, Int32[0, 1, 0, 1]))
    features = npy("<f4", "2, 3, 1, 1", reinterpret(UInt8, Float32.(1:6)))
    return [("safetensors", weights, of_safetensors, read_weights_file, check_tensors, Float32),
        ("safetensors", seen, of_safetensors, read_seen_file, check_tensors, UInt64),
        (".npy", images, of_npy, mmap_images, check_npy, UInt8), (".npy", features, of_npy, mmap_images, check_npy, Float32),
        (".npy", labels, of_npy, path -> mmap_npy(path, Vector{Int32}), check_npy, Int32)]
end

"""
    fuzz(count; seed = 1)

Read so many changed files of each kind; return for each kind how many gave numbers and how many were refused. What goes wrong is thrown, and the
file is kept in the working folder.
"""
function fuzz(count; seed=1)
    rng, counts = Xoshiro(seed), Dict{String,Vector{Int}}()
    mktempdir() do folder
        for (number, (kind, good, changes, reader, check, T)) in enumerate(samples(folder))
            of_kind = get!(counts, kind, [0, 0])
            kinds = kind == ".npy" ? 3 : 2
            path = joinpath(folder, "file$number")
            write(path, good)
            check(reader(path), good, T)
            for _ in 1:cld(count, kinds)
                bytes = rand(rng, changes)(good, rng)
                rand(rng) < 0.1 && !isempty(bytes) && (bytes = rand(rng, (flipped, cut, longer))(bytes, rng))
                # A file that is mapped must not be cut off.
                rm(path; force=true)
                write(path, bytes)
                try
                    of_kind[read_one(reader, check, path, bytes, T) ? 1 : 2] += 1
                catch
                    write("fuzz-failure", bytes)
                    rethrow()
                end
            end
        end
    end
    return counts
end

# Whether it gave numbers, which are those in the file; or it was refused.
function read_one(reader, check, path, bytes, T)
    local found
    memory = @allocated try
        found = reader(path)
    catch err
        err isa ArgumentError || rethrow()
        length(err.msg) < 5000 && startswith(err.msg, path) || error("the message is no help: $(first(err.msg, 300))")
        found = nothing
    end
    memory <= MOST_MEMORY || error("it took $memory bytes")
    found === nothing || check(found, bytes, T)
    return found !== nothing
end

end

if abspath(PROGRAM_FILE) == @__FILE__
    count, seed = parse(Int, get(ARGS, 1, "100000")), parse(Int, get(ARGS, 2, "1"))
    seconds = @elapsed counts = ReaderFuzz.fuzz(count; seed)
    for (kind, (read, refused)) in sort!(collect(counts))
        println("$kind: $(read + refused) files, $read read as they stand, $refused refused")
    end
    println("$(round(seconds; digits=1)) s, seed $seed, Julia $VERSION")
end
