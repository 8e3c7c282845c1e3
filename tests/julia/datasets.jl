using PhotoFlux: ascii_json, dataset_of, holds_features, image_shape, mmap_npy, split_tenth

# numpy.save of np.arange(2*3*2*2, dtype="u1").reshape(2, 3, 2, 2), written out: version 1.0, a header padded to 64 bytes.
function write_npy(path, code, shape, bytes; magic="\x93NUMPY\x01\x00", order="False")
    header = "{'descr': '$code', 'fortran_order': $order, 'shape': ($(join(shape, ", "))$(length(shape) == 1 ? "," : "")), }"
    header = rpad(header, 64 * cld(10 + length(header) + 1, 64) - 11) * "\n"
    open(path, "w") do io
        write(io, codeunits(magic), htol(UInt16(length(header))), header, bytes)
    end
    return path
end

function write_prepared(folder; n=4, meta=Dict())
    mkpath(folder)
    bytes = UInt8.(0:(n * 12 - 1))
    write_npy(joinpath(folder, "images.npy"), "|u1", (n, 3, 2, 2), bytes)
    write_npy(joinpath(folder, "labels.npy"), "<i4", (n,), htol.(Int32[0, 1, 0, 1][mod1.(1:n, 4)]))
    write_npy(joinpath(folder, "split.npy"), "|u1", (n,), UInt8[0, 0, 1, 2][mod1.(1:n, 4)])
    description = merge(Dict("format" => 1, "classes" => ["a", "b"], "name" => "x", "fingerprint" => "f"), meta)
    write(joinpath(folder, "meta.json"), PhotoFlux.JSON.json(description))
    return folder
end

mktempdir() do root
    folder(name; kwargs...) = write_prepared(joinpath(root, name); kwargs...)

    @testset "a prepared dataset is opened by memory map" begin
        data = open_dataset(folder("good"))
        @test image_shape(data) == (2, 2, 3)
        # NumPy's element [n, c, h, w] is 12n + 4c + 2h + w.
        @test all(data.images[w, h, c, n] == 12(n - 1) + 4(c - 1) + 2(h - 1) + (w - 1) for w in 1:2, h in 1:2, c in 1:3, n in 1:4)
        @test data.labels == [0, 1, 0, 1]
        @test (indices(data, :train), indices(data, :validation), indices(data, :test)) == ([1, 2], [3], [4])
        @test_throws "`part` must be one of train, validation, test" indices(data, :holdout)
        @test occursin("4 images 2×2×3", sprint(show, data))
    end

    @testset "what cannot be opened says why" begin
        @test_throws "there is no folder" open_dataset(joinpath(root, "none"))
        @test_throws "neither a prepared dataset" open_dataset(mkpath(joinpath(root, "empty")))
        @test_throws "format 2; this PhotoFlux reads 1" open_dataset(folder("version"; meta=Dict("format" => 2)))
        @test_throws "labels must be 0 to 2" (write_npy(joinpath(folder("labels"; meta=Dict("classes" => ["a", "b", "c"])), "labels.npy"), "<i4", (4,), htol.(Int32[0, 1, 2, 3])); open_dataset(joinpath(root, "labels")))
        write(joinpath(folder("json"), "meta.json"), "{")
        @test_throws "is not JSON" open_dataset(joinpath(root, "json"))
        rm(joinpath(folder("missing"), "labels.npy"))
        @test_throws "labels.npy is missing" open_dataset(joinpath(root, "missing"))
        write_npy(joinpath(folder("short"), "images.npy"), "|u1", (4, 3, 2, 2), zeros(UInt8, 47))
        @test_throws "is truncated" open_dataset(joinpath(root, "short"))
        write_npy(joinpath(folder("float"), "images.npy"), "<f4", (4, 3, 2, 2), zeros(UInt8, 192))
        @test_throws "holds <f4" open_dataset(joinpath(root, "float"))
        write_npy(joinpath(folder("square"), "images.npy"), "<f4", (4, 3, 1, 2), zeros(Float32, 24))
        @test_throws "holds <f4" open_dataset(joinpath(root, "square"))
        write_npy(joinpath(folder("broken"), "images.npy"), "<f4", (4, 3, 1, 1), Float32[1:11; NaN])
        @test_throws "there are features that are NaN or infinite" open_dataset(joinpath(root, "broken"))
        write_npy(joinpath(folder("cut features"), "images.npy"), "<f4", (4, 3, 1, 1), zeros(Float32, 11))
        @test_throws "is truncated" open_dataset(joinpath(root, "cut features"))
        write_npy(joinpath(folder("fortran"), "images.npy"), "|u1", (4, 3, 2, 2), zeros(UInt8, 48); order="True")
        @test_throws "expected C-order" open_dataset(joinpath(root, "fortran"))
        write(joinpath(folder("text"), "images.npy"), "hello")
        @test_throws "is not a .npy file" open_dataset(joinpath(root, "text"))
        write(joinpath(folder("cut"), "images.npy"), b"\x93NUMPY\x01\x00\xff")
        @test_throws ArgumentError open_dataset(joinpath(root, "cut"))
        write_npy(joinpath(folder("count"), "split.npy"), "|u1", (3,), zeros(UInt8, 3))
        @test_throws DimensionMismatch open_dataset(joinpath(root, "count"))
    end

    @testset "features" begin
        write_npy(joinpath(folder("features"), "images.npy"), "<f4", (4, 3, 1, 1), Float32.(1:12))
        data = open_dataset(joinpath(root, "features"))
        @test holds_features(data) && size(data.images) == (1, 1, 3, 4)
        @test vec(data.images[:, :, :, 2]) == [4, 5, 6]
        @test !holds_features(open_dataset(folder("images")))
    end

    @testset "CIFAR-10's binary version" begin
        cifar = mkpath(joinpath(root, "cifar"))
        rng = Xoshiro(1)
        for (i, file) in enumerate([["data_batch_$k.bin" for k in 1:5]; "test_batch.bin"])
            records = rand(rng, UInt8, 3073, 20)
            records[1, :] .= repeat(0:9, 2)
            records[2:3073, 1] .= UInt8.(mod.(0:3071, 251)) .⊻ UInt8(i)
            write(joinpath(cifar, file), records)
        end
        data = open_dataset(cifar)
        @test length(data) == 120
        @test length.(indices.(Ref(data), (:train, :validation, :test))) == (90, 10, 20)
        @test sort(data.labels[indices(data, :validation)]) == 0:9
        # Byte 1024c + 32h + w of a record is channel c, row h, column w.
        @test all(data.images[w, h, c, 1] == UInt8(mod(1024(c - 1) + 32(h - 1) + w - 1, 251)) ⊻ 0x01 for w in (1, 2, 32), h in (1, 5, 32), c in 1:3)
        @test data.classes[4] == "cat"
        @test data.split == open_dataset(cifar).split != open_dataset(cifar; seed=7).split
        write(joinpath(cifar, "data_batch_3.bin"), zeros(UInt8, 3072))
        @test_throws "no whole number of records" open_dataset(cifar)
        rm(joinpath(cifar, "data_batch_3.bin"))
        @test_throws "data_batch_3.bin, which is missing" open_dataset(cifar)
    end
end

@testset "arrays that do not fit" begin
    x, y = zeros(UInt8, 4, 4, 1, 3), [0, 1, 0]
    @test length(dataset_of((x, y), (x, y), ["a", "b"]; name="n")) == 6
    @test_throws DimensionMismatch dataset_of((x, [0, 1]), (x, y), ["a", "b"]; name="n")
    @test_throws "labels must be 0 to 1" dataset_of((x, [0, 1, 2]), (x, y), ["a", "b"]; name="n")
end

# The same numbers stand in tests/python/data/test_splitting.py; positions count from 0 there.
@testset "a tenth by a rule that Python knows too" begin
    labels, groups = mod.(0:59, 3), collect(1:60)
    groups[[7, 10]] .= 4
    for (seed, expected) in (42 => [1, 13, 41, 45, 53, 54], 7 => [4, 7, 12, 26, 33, 59], big(2)^80 => [0, 4, 7, 27, 44, 50])
        @test findall(==(1), split_tenth(labels, groups, seed)) .- 1 == expected
    end
    @test split_tenth([0, 0, 0], [1, 1, 1], 42) == [0, 0, 0]
end

@testset "text as Python's json.dumps writes it" begin
    @test ascii_json("Foto \"é\"\n\\😀\x7f") == "\"Foto \\\"\\u00e9\\\"\\n\\\\\\ud83d\\ude00\\u007f\""
end
