# Runs on a backbone, from pixels to a saved run and back, on made-up backbones in a cache of the test's own.
using PhotoFlux: features_dataset, identities, known!, write_arrays
using PhotoFlux.JSON
using PhotoFlux.SHA: sha256

const CACHE = mktempdir()
mkdir(joinpath(CACHE, "backbones"))
for (seed, name) in enumerate(("a", "b"))
    write_backbone(joinpath(CACHE, "backbones", "$name.safetensors"), made_backbone(; seed, image_size=16seed))
end
cached(f) = withenv(f, "PHOTOFLUX_CACHE" => CACHE)

const DATA = tiny_data(; size=(16, 14, 3))
quick(name="transfer"; backbone="a", data=DATA, kwargs...) =
    cached(() -> train(variant(name; backbone), data; epochs=3, batch_size=8, learning_rate=0.01, kwargs...))
features(images, name="a") = cached(() -> backbone_features(load_backbone(name; image_size=size(images)[1:2]), images))
held(run) = (run.backbone.entry["name"], run.backbone.entry["features"])

# The dataset of all features, made by hand: a fit to it is that of before.
function by_hand(name="a")
    x = features(DATA.images, name)
    return PreparedDataset(reshape(x, 1, 1, size(x)...), DATA.labels, DATA.split, DATA.classes, DATA.name, DATA.fingerprint)
end

timeless(run) = [Base.structdiff(row, (; seconds=0)) for row in run.history]

@testset "the head is fitted to the backbone's features, $name on $backbone" for (name, backbone) in
    (("transfer", "a"), ("transfer_l1", "a"), ("transfer_mlp", "a+b"))
    run, head = quick(name; backbone), train(variant(name), by_hand(backbone); epochs=3, batch_size=8, learning_rate=0.01)
    @test arrays(run.model) == arrays(head.model)
    @test timeless(run) == timeless(head)
    @test held(run) == (backbone, TOP * length(split(backbone, '+')))
    @test run.variant.backbone == backbone
    @test (run.input, run.data.fingerprint) == ((16, 14, 3), DATA.fingerprint)
    @test (head.input, head.backbone) == ((1, 1, held(run)[2]), nothing)
    @test predict(run, DATA.images) == predict(head.model, by_hand(backbone).images)
    # Sums of at most 100 terms come out in another order in batches of another size.
    @test predict(run, DATA.images; batch_size=5) ≈ predict(run, DATA.images) rtol = 100 * eps(Float32)
    for part in (:train, :validation, :test)
        @test isequal(evaluate(run, DATA; part), (; evaluate(head.model, by_hand(backbone), head.variant; part)...,
            images=length(indices(DATA, part)), left_out=0))
    end
    @test occursin("on $(held(run)[2]) features by $backbone\n", sprint(show, MIME("text/plain"), run))
end

@testset "features are those of the images that are asked for, and counted" begin
    backbone = cached(() -> PhotoFlux.RunBackbone("a", (16, 14, 3)))
    chosen = [48, 3, 17]
    found = @test_logs (:info, r"^Features of 3 of 3 images by a, [0-9.]+ images/s$") features_dataset(backbone, DATA, chosen)
    @test reshape(found.images, TOP, :) == features(DATA.images)[:, chosen]
    @test (found.labels, found.split) == (DATA.labels[chosen], DATA.split[chosen])
    # More than are taken out at a time.
    many = rand(Xoshiro(1), 1:48, PhotoFlux.FEATURE_BLOCK + 3)
    @test reshape(features_dataset(backbone, DATA, many).images, TOP, :) == features(DATA.images)[:, many]
    # The test part takes no time in a fit.
    @test_logs (:info, r"^Features of 40 of 40 images by a, ") quick()
end

@testset "what it has seen are images" begin
    run = quick()
    @test known!(run.seen).train == sort(identities(DATA, indices(DATA, :train)))
    mixed = PreparedDataset(DATA.images, DATA.labels, fill(0x02, 48), DATA.classes, "all", "all")
    found = evaluate(run, mixed)
    @test (found.images, found.left_out) == (8, 40)
    @test found.confusion == evaluate(run, DATA).confusion
    more = quick(; initial=run)
    @test more.initial.fingerprint == PhotoFlux.fingerprint(run.model, layers(run))
    @test more.history[1].train_loss < run.history[1].train_loss
end

@testset "what is refused" begin
    @test_throws "The backbone c is not in PhotoFlux's cache" quick(; backbone="c")
    @test_throws "`balance` cannot be \"augment\" on features" quick(; balance="augment")
    @test_throws "`backbone` must be left out" variant("l2"; backbone="a")
    run = quick()
    @test_throws "The run's images are 16×14×3 (W×H×C); received: 14×16×3." predict(run, zeros(UInt8, 14, 16, 3, 1))
    @test_throws "The run's images are 16×14×3 (W×H×C); received: 1×1×50." evaluate(run, by_hand())
end

mktempdir() do root
    read_entry(folder) = JSON.parsefile(joinpath(folder, "run.json"))["backbone"]
    function rewrite(folder, change!)
        d = JSON.parsefile(joinpath(folder, "run.json"))
        change!(d["backbone"])
        write(joinpath(folder, "run.json"), JSON.json(d))
    end
    bytes(array) = reinterpret(UInt8, vec(array))
    # The weights in the order of the network.
    hash(seed) = bytes2hex(sha256(reduce(vcat, bytes.(last.(first(made_backbone(; seed)))))))
    same(a, b) = arrays(a.model) == arrays(b.model) && predict(a, DATA.images) == predict(b, DATA.images) && held(a) == held(b)

    @testset "there and back, $name on $backbone" for (name, backbone) in (("transfer", "a"), ("transfer_l1", "a+b"))
        run = quick(name; backbone)
        folder = save_run(joinpath(root, name), run)
        back = cached(() -> load_run(folder))
        @test same(run, back) && isequal(evaluate(run, DATA), evaluate(back, DATA))
        @test back.input == (16, 14, 3)
        @test sort(readdir(folder)) == ["history.csv", "run.json", "seen.safetensors", "weights.safetensors"]
        entry = read_entry(save_run(joinpath(root, "again"), back))
        @test entry == read_entry(folder)
        names = split(backbone, '+')
        networks = [Dict("name" => name, "fingerprint" => hash(name == "a" ? 1 : 2)) for name in names]
        @test Dict.(entry["networks"]) == networks
        @test entry["fingerprint"] == (length(names) == 1 ? hash(1) : bytes2hex(sha256(hash(1) * "+" * hash(2))))
        expected = (backbone, TOP * length(names), 16length(names), "float32", 0)
        @test Tuple(entry[field] for field in ("name", "features", "image_size", "precision", "views")) == expected
        remaining = name == "transfer_l1" ? sum(any(!=(0), column) for column in eachcol(run.model[:output].weight)) : nothing
        @test get(entry, "remaining", nothing) == remaining
    end

    @testset "a backbone that is given by its path goes with the run" begin
        path = write_backbone(joinpath(root, "mine.safetensors"), made_backbone(; seed=3))
        run = quick(; backbone=path)
        @test (run.variant.backbone, held(run)) == ("tiny", ("tiny", TOP))
        folder = save_run(joinpath(root, "own"), run)
        rm(path)
        back = load_run(folder)
        @test same(run, back)
        @test read_entry(folder)["file"] == "backbone.safetensors"
        @test same(run, load_run(save_run(joinpath(root, "copied"), back)))
        @test same(run, load_run(save_run(folder, back)))
        save_run(folder, quick())
        @test !ispath(joinpath(folder, "backbone.safetensors"))
        @test !haskey(read_entry(folder), "file")
    end

    @testset "a backbone that is not what it was, or is Python's" begin
        folder = save_run(joinpath(root, "run"), quick())
        refused(words) = @test_throws words cached(() -> load_run(folder))
        withenv("PHOTOFLUX_CACHE" => root) do
            @test_throws "The backbone a is not in PhotoFlux's cache" load_run(folder)
        end
        rewrite(folder, entry -> entry["fingerprint"] = "0123")
        refused("was made with a backbone a of other weights: their fingerprint was 0123, that of a is $(hash(1))")
        rewrite(folder, entry -> entry["precision"] = "int8")
        refused("The backbone of the run $folder, a, is in int8, which only Python computes")
        rewrite(folder, entry -> (entry["precision"] = "float32"; entry["networks"][1]["path"] = "a.onnx"))
        refused("The backbone of the run $folder, a, is an ONNX file, which only Python computes")
    end
end
