using PhotoFlux: canonical_weights, write_arrays

function reloaded(v, model, path)
    write_weights(path, model, layers_of(v))
    return load_weights!(small_model(v; seed=99), path, layers_of(v))
end

mktempdir() do root
    path = joinpath(root, "weights.safetensors")

    @testset "there and back bit-equal, $(v.name)" for v in variants()
        model = small_model(v)
        @test arrays(reloaded(v, model, path)) == arrays(model)
    end

    @testset "names, shapes and Keras' order" begin
        v = variant("baseline")
        w, h, _ = input_of(v)
        model = small_model(v)
        stored, metadata = read_weights(write_weights(path, model, layers_of(v); metadata=Dict("variant" => "baseline")))
        @test metadata == Dict("variant" => "baseline", "format" => "photoflux-weights-1")
        @test Set(keys(stored)) == Set("$l.$k" for l in ("conv1", "conv2", "conv3", "dense1", "output") for k in ("kernel", "bias"))
        # Keras' kernel[y, x, in, out] is reversed here.
        @test all(stored["conv2.kernel"][o, i, x, y] == model[:conv2].weight[x, y, i, o] for o in (1, 32), i in (1, 16), x in 1:3, y in 1:3)
        # Keras flattens (h, w, c): input ((y·W) + x)·64 + c of the Dense layer.
        halfw, halfh = w ÷ 2, h ÷ 2
        flux_column(x, y, c) = x + halfw * (y - 1) + halfw * halfh * (c - 1)
        keras_row(x, y, c) = ((y - 1) * halfw + (x - 1)) * 64 + c
        @test all(stored["dense1.kernel"][u, keras_row(x, y, c)] == model[:dense1].weight[u, flux_column(x, y, c)]
            for u in (1, 128), x in 1:halfw, y in 1:halfh, c in (1, 33, 64))
        @test stored["output.kernel"] == model[:output].weight
    end

    @testset "the file is safetensors" begin
        write_arrays(path, ["a" => Float32[1 2; 3 4; 5 6], "b" => Float32[7]])
        bytes = read(path)
        n = only(reinterpret(UInt64, bytes[1:8]))
        header = PhotoFlux.JSON.parse(String(bytes[9:(8 + n)]))
        @test n % 8 == 0
        @test header["a"]["shape"] == [2, 3]
        @test header["b"]["data_offsets"] == [24, 28]
        @test reinterpret(Float32, bytes[(9 + n):end]) == [1, 3, 5, 2, 4, 6, 7]
    end

    @testset "a bad file is a clear error" begin
        v = variant("baseline")
        good = read(write_weights(path, small_model(v), layers_of(v)))
        bad(bytes) = (write(path, bytes); path)
        with_header(json) = bad([reinterpret(UInt8, [UInt64(ncodeunits(json))]); codeunits(json); zeros(UInt8, 16)])
        @test_throws "There is no weights file" read_weights(joinpath(root, "none"))
        @test_throws "is not a weights file" read_weights(bad(UInt8[]))
        @test_throws "is not a weights file" read_weights(bad(rand(Xoshiro(1), UInt8, 1000)))
        @test_throws "truncated" read_weights(bad(good[1:(end - 4)]))
        @test_throws "truncated" read_weights(bad(good[1:40]))
        @test_throws "not JSON" read_weights(with_header("{]"))
        @test_throws "not a JSON object" read_weights(with_header("[1, 2]"))
        entry(d, s, o) = """{"a":{"dtype":"$d","shape":$s,"data_offsets":$o}}"""
        @test first(read_weights(with_header(entry("F32", [4], [0, 16]))))["a"] == zeros(Float32, 4)
        @test_throws "a is F64; expected F32" read_weights(with_header(entry("F64", [2], [0, 16])))
        @test_throws "does not lie in the file" read_weights(with_header(entry("F32", [5], [0, 20])))
        @test_throws "does not lie in the file" read_weights(with_header(entry("F32", [3], [0, 16])))
        @test_throws "does not lie in the file" read_weights(with_header(entry("F32", [4294967296, 4294967296, 4294967296], [0, 0])))
        @test_throws "cannot be read" read_weights(with_header(entry("F32", [-1], [0, 4])))
        @test_throws "no entry for a" read_weights(with_header("""{"a": 3}"""))
    end

    @testset "weights of another variant" begin
        write_weights(path, small_model(variant("mlp")), layers_of(variant("mlp")))
        model = small_model(variant("baseline"))
        before = arrays(model)
        @test_throws "do not fit this model:\n    in the file" load_weights!(model, path, layers("baseline", (12, 10, 3), 2))
        @test_throws r"≠ –\s+conv1\.kernel \(3, 3, 3, 16\)" load_weights!(model, path, layers("baseline", (12, 10, 3), 2))
        @test_throws r"≠ dense2\.kernel \(512, 256\)\s+–" load_weights!(model, path, layers("baseline", (12, 10, 3), 2))
        @test arrays(model) == before
    end

    @testset "an older file stays until the new one is whole" begin
        write(path, "old")
        @test_throws ErrorException PhotoFlux.replace_file(io -> (write(io, "half"); error("disk full")), path)
        @test read(path, String) == "old"
        @test readdir(root) == ["weights.safetensors"]
    end

    # Of a large array Julia writes what there is room for, and throws nothing.
    @testset "a full disk leaves an older file" begin
        disk = mkdir(joinpath(root, "disk"))
        if Sys.islinux() && success(`mount -t tmpfs -o size=64k tmpfs $disk`)
            try
                file = joinpath(disk, "weights.safetensors")
                write(file, "old")
                write(joinpath(disk, "filler"), zeros(UInt8, 60 * 1024))
                for write_to in (io -> PhotoFlux.write_array(io, zeros(Float32, 10^5)), io -> println(io, "a line"))
                    @test_throws SystemError PhotoFlux.replace_file(write_to, file)
                    @test read(file, String) == "old"
                    @test readdir(disk) == ["filler", "weights.safetensors"]
                end
            finally
                run(`umount -l $disk`)
            end
        else
            @info "No disk can be mounted here: a full one was not tested."
        end
        rm(disk)
    end

    @testset "what a process that was killed has left is removed" begin
        Sys.islinux() && let gone = run(`true`; wait=false)
            pid = getpid(gone)
            wait(gone)
            left(pid, start, machine=PhotoFlux.machine()) = touch(joinpath(root, ".weights.safetensors.$machine-$pid-$start-9999999.tmp"))
            dead, another, folder = left(pid, 0), left(getpid(), 1), mkpath(joinpath(root, ".run.$(PhotoFlux.machine())-$pid-0-1.tmp"))
            alive = [left(getpid(), PhotoFlux.started(getpid())), left(pid, 0, "00000000"), touch(joinpath(root, ".other.tmp"))]
            PhotoFlux.replace_file(io -> write(io, "new"), path)
            @test !any(ispath, (dead, another, folder)) && all(isfile, alive)
            @test read(path, String) == "new" && length(readdir(root)) == 4
            foreach(rm, alive)
        end
        # A long name leaves room for more.
        long = joinpath(root, "ü"^120)
        PhotoFlux.replace_file(io -> (write(io, "x"); @test length(readdir(root)) == 2), long)
        @test read(long, String) == "x"
    end
end
