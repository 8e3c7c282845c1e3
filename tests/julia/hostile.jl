# Files from somebody else: whatever stands in them, they are refused by an ArgumentError or read as they are.
using PhotoFlux: mmap_npy, parse_json, read_tensors, write_arrays
using Random: shuffle!

Base.include(@__MODULE__, joinpath(@__DIR__, "..", "fuzz", "readers.jl"))

mktempdir() do root
    path = joinpath(root, "file")

    @testset "files that are changed at random" begin
        for (kind, (read, refused)) in ReaderFuzz.fuzz(1500)
            @test read > 50 && refused > 500
        end
    end

    @testset "arrays that lie over one another, or leave a gap" begin
        tensors(header, bytes) = (write(path, ReaderFuzz.with_header(header, zeros(UInt8, bytes))); read_tensors(path, Float32, "a weights file"))
        entry(name, from, to) = """"$name":{"dtype":"F32","shape":[$((to - from) ÷ 4)],"data_offsets":[$from,$to]}"""
        @test length(first(tensors("{$(entry("a", 0, 8)),$(entry("b", 8, 12))}", 12))) == 2
        @test_throws "do not lie one after another" tensors("{$(entry("a", 0, 8)),$(entry("b", 0, 8))}", 8)
        @test_throws "do not lie one after another" tensors("{$(entry("a", 0, 8)),$(entry("b", 12, 16))}", 16)
        @test_throws "4 bytes behind its last array" tensors("{$(entry("a", 0, 8))}", 12)
        @test_throws "metadata is not a table of texts" tensors("{\"__metadata__\":[1],$(entry("a", 0, 8))}", 8)
        @test_throws "metadata is not a table of texts" tensors("{\"__metadata__\":{\"a\":1},$(entry("a", 0, 8))}", 8)
        shaped(shape) = tensors("""{"a":{"dtype":"F32","shape":$shape,"data_offsets":[0,0]}}""", 0)
        @test isempty(first(shaped("[0]"))["a"])
        @test_throws "a does not lie in the file" shaped("[0, 4611686018427387904]")
        @test_throws "shape or place of a cannot be read" shaped("[$(join(fill("0", 2000), ", "))]")
        @test_throws "shape or place of a cannot be read" shaped("[true, 0]")
    end

    # 2^64 is more than an Int holds: the product of such lengths is small, and what is beyond the file would be read.
    @testset "lengths whose product does not fit" begin
        a, b = ReaderFuzz.wrapping(Xoshiro(1), 8)
        write(path, ReaderFuzz.npy("|u1", "$a, $b, 1, 1", zeros(UInt8, 24)))
        @test a * b == 8
        @test_throws "is truncated" mmap_npy(path, Array{UInt8,4})
        write(path, ReaderFuzz.npy("<i4", "99999999999999999999,", zeros(UInt8, 16)))
        @test_throws "header that cannot be read" mmap_npy(path, Vector{Int32})
        write(path, ReaderFuzz.npy("<i4", "4,", zeros(UInt8, 16); version=2, after=" "^20_000))
        @test_throws "has a header of" mmap_npy(path, Vector{Int32})
    end

    @testset "numbers that are not aligned are read all the same" begin
        header = "{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }\n"
        isodd(length(header)) || (header *= " ")
        write(path, UInt8[ReaderFuzz.NPY_HEAD; 1; 0; length(header); 0; codeunits(header); reinterpret(UInt8, Int32[1, 2, 3, 4])])
        @test mmap_npy(path, Vector{Int32}) == [1, 2, 3, 4]
    end

    @testset "an array without axes" begin
        write_arrays(path, ["a" => fill(7.0f0)])
        @test first(read_tensors(path, Float32, "a weights file"))["a"] == fill(7.0f0)
    end

    # The parser's stack would overflow, after which the process may be damaged.
    @testset "objects within objects without end" begin
        @test parse_json("["^100 * "]"^100) isa AbstractVector
        @test parse_json("{\"a\\\\\": \"$("["^200)\\\"{\"}") == Dict("a\\" => "["^200 * "\"{")
        for text in ("["^101 * "]"^101, "{\"a\":"^100_000, "[\"\\\"\",[" ^ 101)
            @test_throws "more than 100 objects within one another" parse_json(text)
        end
    end

    @testset "weights that are not finite" begin
        v = variant("dense_l2")
        model = small_model(v)
        model[:dense1].weight[3] = NaN32
        write_weights(path, model, layers_of(v))
        @test_throws "dense1.kernel has values that are not finite" load_weights!(small_model(v), path, layers_of(v))
    end
end

# Every value of a JSON file in turn is another one.
function places(value, above=())
    found = isempty(above) ? Any[] : Any[above]
    inner = value isa AbstractDict ? keys(value) : value isa AbstractVector ? eachindex(value) : ()
    return foldl((all, key) -> append!(all, places(value[key], (above..., key))), inner; init=found)
end

function changed(values, place, new)
    values = deepcopy(values)
    inner = foldl((value, key) -> value[key], place[1:(end - 1)]; init=values)
    inner[last(place)] = new
    return values
end

const NOT_JSON = ["", "null", "[]", "{", "{}", "[1]", "{\"format\": 1}", "["^100_000, "{\"a\":"^100_000, "NaN", "\0"^100, "\xff\xfe"]

# Whether f() refuses a file; another exception fails the test.
function refuses(f)
    try
        f()
        return false
    catch err
        err isa Union{ArgumentError,DimensionMismatch,PhotoFlux.DivergedError} || rethrow()
        return length(sprint(showerror, err)) < 5000
    end
end

# Some of all pairs of a place and another value for it.
some(values, others, n) = Iterators.take(shuffle!(Xoshiro(1), [(place, new) for place in places(values) for new in others]), n)

function refuses_odd_values(use, file, least)
    text, refused = read(file, String), 0
    values = PhotoFlux.JSON.parse(text)
    @test !refuses(use)
    for (place, new) in some(values, ReaderFuzz.ODD, 250)
        write(file, PhotoFlux.JSON.json(changed(values, place, new)))
        refused += refuses(use)
    end
    @test refused > least
    for bad in NOT_JSON
        write(file, bad)
        @test refuses(use)
    end
    write(file, text)
    @test !refuses(use)
end

mktempdir() do root
    v = variant("dense_l2")
    data = data_of(v)
    run = train(v, data; epochs=1)

    @testset "whatever a value of run.json is" begin
        folder = save_run(joinpath(root, "run"), run)
        refuses_odd_values(() -> load_run(folder), joinpath(folder, "run.json"), 120)
        history = joinpath(folder, "history.csv")
        lines = readlines(history)
        for bad in ("x\n1\n", "epoch\nx\n", "epoch,epoch\n1,2\n", lines[1] * "\n1,2\n", "\xff\n\xff\n", "a,"^100_000 * "\n" * "1,"^100_000)
            write(history, bad)
            @test refuses(() -> load_run(folder))
        end
    end

    @testset "a run that asks for more than its weights hold is not built" begin
        folder = save_run(joinpath(root, "large"), run)
        file = joinpath(folder, "run.json")
        values = PhotoFlux.JSON.parsefile(file)
        for (field, value) in ("hidden" => [1_000_000, 1_000_000], "hidden" => [typemax(Int)], "hidden" => fill(1, 300))
            values["variant"][field] = value
            write(file, PhotoFlux.JSON.json(values))
            @test (@allocated refuses(() -> load_run(folder))) < 2^30
        end
    end

    @testset "whatever a value of meta.json is" begin
        folder = mkpath(joinpath(root, "prepared"))
        write(joinpath(folder, "images.npy"), ReaderFuzz.npy("|u1", "2, 3, 2, 2", UInt8.(1:24)))
        write(joinpath(folder, "labels.npy"), ReaderFuzz.npy("<i4", "2,", reinterpret(UInt8, Int32[0, 1])))
        write(joinpath(folder, "split.npy"), ReaderFuzz.npy("|u1", "2,", UInt8[0, 1]))
        meta = Dict("format" => 1, "classes" => ["a", "b"], "name" => "x", "fingerprint" => "f", "seed" => 1)
        write(joinpath(folder, "meta.json"), PhotoFlux.JSON.json(meta))
        refuses_odd_values(() -> open_dataset(folder), joinpath(folder, "meta.json"), 100)
    end

    @testset "a backbone whose header lies" begin
        pairs, metadata = made_backbone()
        path = joinpath(root, "backbone.safetensors")
        description = PhotoFlux.JSON.parse(metadata["description"])
        for (place, new) in some(description, (nothing, 0, -1, 2^40, "x", [], NaN), 60)
            text = PhotoFlux.JSON.json(changed(description, place, new); allownan=true)
            PhotoFlux.write_arrays(path, pairs; metadata=merge(metadata, Dict("description" => text)))
            refuses(() -> load_backbone(path))
        end
        @test_throws "is not the name of a backbone" load_backbone("../../x")
    end

    @testset "a checkpoint whose state is not that of the fit" begin
        checkpoints = joinpath(root, "checkpoints")
        again(; kwargs...) = train(v, data; epochs=3, batch_size=7, checkpoints, checkpoint_minutes=0, kwargs...)
        done = 0
        try
            again(; on_batch=_ -> (done += 1) == 9 ? error("ended") : false)
        catch
        end
        file = first(PhotoFlux.checkpoint_files(checkpoints))
        kept = read(file)
        found, metadata = read_tensors(file, Float32, "a checkpoint")
        state = PhotoFlux.JSON.parse(metadata["state"])
        refused = 0
        function try_it(state, found)
            text = PhotoFlux.JSON.json(state)
            pairs = sort!(collect(Pair{String,Array{Float32}}, found); by=first)
            crc32c = PhotoFlux.checksum(metadata["fit"], text, pairs)
            foreach(rm, PhotoFlux.checkpoint_files(checkpoints))
            write_arrays(file, pairs; metadata=merge(metadata, Dict("state" => text, "crc32c" => crc32c)))
            return refuses(() -> again(; resume=true, on_batch=_ -> true))
        end
        @test !try_it(state, found)
        for (place, new) in some(state, (nothing, -1, 2^40, "x", [], "ffffffffffffffff"), 150)
            refused += try_it(changed(state, place, new), found)
        end
        @test refused > 50
        name = first(sort!(collect(keys(found))))
        @test try_it(state, filter(((other, _),) -> other != name, found))
        @test try_it(state, merge(found, Dict(name => zeros(Float32, 1))))
        write(file, kept)
    end
end
