# Fits and predictions of tiny images, so that a user's first call does not wait for the compiler: of each kind of chain, through
# files, of images wide enough for every convolution algorithm. All in a `let`, because PrecompileTools on Julia 1.11 makes no
# scope: there an assignment would be to a global name, and to `split` an error.

# A prepared dataset as Python writes it.
function write_prepared(folder, images, labels, split, classes)
    function npy(name, array)
        header = "{'descr': '$(NPY_CODES[eltype(array)])', 'fortran_order': False, 'shape': $(reverse(size(array))), }"
        # Not atomic: into a scratch folder, as what follows.
        open(joinpath(folder, name), "w") do io
            write(io, b"\x93NUMPY\x01\x00", htol(UInt16(118)), rpad(header, 117), '\n', htol.(array))
        end
    end
    npy("images.npy", images)
    npy("labels.npy", labels)
    npy("split.npy", split)
    # Not atomic: as above.
    write(joinpath(folder, "meta.json"), JSON.json((; format=1, name="tiny", fingerprint="", classes)))
end

# A backbone with every kind of block.
function write_small_backbone(path)
    pairs, blocks, inputs = Pair{String,Array{Float32}}[], [], 16
    put(name, outputs, rest...) = push!(pairs, "$name.kernel" => zeros(Float32, outputs, rest...), "$name.bias" => zeros(Float32, outputs == 1 ? rest[1] : outputs))
    put("stem", 16, 3, 3, 3)
    for (number, (kernel, stride, outputs)) in enumerate(((3, 1, 16), (3, 2, 32), (5, 1, 32), (5, 2, 48)))
        middle = number == 1 ? inputs : 48
        number == 1 || put("block$number.expand", middle, inputs, 1, 1)
        put("block$number.depthwise", 1, middle, kernel, kernel)
        put("block$number.project", outputs, middle, 1, 1)
        push!(blocks, (; kernel, stride, residual=inputs == outputs, expand=number > 1))
        inputs = outputs
    end
    put("top", 64, inputs, 1, 1)
    description = JSON.json((; name="small", features=64, image_size=16, mean=127, scale=128, blocks))
    return write_arrays(path, pairs; metadata=Dict("format" => BACKBONE_FORMAT, "description" => description))
end

@setup_workload let
    images = rand(Xoshiro(1), UInt8, 2LANES, 8, 3, 8)
    features = rand(Xoshiro(1), Float32, 1, 1, 4, 8)
    split = UInt8[0, 0, 0, 0, 1, 1, 2, 2]
    settings(balance, checkpoints, resume=false; more...) = JSON.json((; epochs=1, batch_size=3, learning_rate=0.001, seed=1, balance, on_nonfinite="stop",
        schedule="constant", checkpoints, resume, checkpoint_minutes=0.0, more...))
    nothing_done(values...) = false
    @compile_workload begin
        chosen = [variant.(("l2", "dropout", "dense_l2", "dense_dropout", "mlp"))...; variant("mlp"; loss="squared_error")]
        append!(chosen, variant.(("transfer", "transfer_l1", "transfer_elastic_net", "transfer_mlp")))
        for classes in (2, 3), v in chosen
            labels, folder = Int32[mod(i, classes) for i in 1:8], mktempdir()
            x = takes_features(v) ? features : images
            write_prepared(folder, x, labels, split, string.(1:classes))
            spec, weights = JSON.json(as_dict(v)), joinpath(folder, "weights.safetensors")
            balance, kept = takes_features(v) ? "none" : "augment", joinpath(folder, CHECKPOINTS)
            engine_fit(spec, folder, weights, settings(balance, kept), nothing, nothing_done, nothing_done, nothing_done, nothing_done, nothing, false)
            engine_fit(spec, folder, weights, settings(balance, kept, true; max_time=1e9), nothing, nothing_done, nothing_done, nothing_done, nothing_done, nothing, false)
            z = zeros(Float32, outputs(classes), 8)
            model = engine_load(spec, weights, classes, size(x)[1:3]...)
            GC.@preserve z x engine_logits!(Int(pointer(z)), model, Int(pointer(x)), size(x)..., 3, 1)
            run = train(v, folder; epochs=1, batch_size=3)
            evaluate(run, folder)
            predict(run, x)
        end
        source = write_small_backbone(joinpath(mktempdir(), "small.safetensors"))
        backbone, found = engine_backbone(source, size(images)[1:2]...), zeros(Float32, 64, 8)
        GC.@preserve found images begin
            engine_features!(Int(pointer(found)), backbone, Int(pointer(images)), size(images)..., 8)
            engine_activations(backbone, Int(pointer(images)), size(images)...)
        end
        backbone_features(load_backbone(source; image_size=size(images)[1:2]), images)
        data = PreparedDataset(images, Int32[mod(i, 2) for i in 1:8], split, ["0", "1"], "tiny", "")
        run = with_logger(() -> train(variant("transfer"; backbone=source), data; epochs=1), NullLogger())
        predict(load_run(save_run(joinpath(mktempdir(), "run"), run)), images)
    end
end
