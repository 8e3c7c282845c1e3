# Fine-tuning of a backbone made here, on images of bright squares.
using PhotoFlux: DivergedError, frozen_activations, read_tensors, sha256

const FOLDER = mktempdir()
const PATH = write_backbone(joinpath(FOLDER, "tiny.safetensors"))
# As many images as it takes for the validation loss not to be noise, whichever numbers a version of Julia draws.
const DATA = tiny_data(; size=(33, 33, 3), counts=[96, 96])
const V = variant("transfer_mlp")

backbone_of(data=DATA) = load_backbone(PATH; image_size=PhotoFlux.image_shape(data)[1:2])

# The features dataset of these images, as Python makes it, and a head that was fitted to it.
function features_of(backbone, data=DATA)
    features = reshape(backbone_features(backbone, data.images), 1, 1, TOP, :)
    return PreparedDataset(features, data.labels, data.split, data.classes, data.name, "features")
end

const HEAD = train(V, features_of(backbone_of()); epochs=3, batch_size=8, learning_rate=0.003)

tune(; backbone=backbone_of(), data=DATA, head=HEAD, v=V, unfreeze=2, epochs=2, batch_size=8, learning_rate=0.002, kwargs...) =
    fine_tune(v, head, backbone, data; unfreeze, epochs, batch_size, learning_rate, scratch=FOLDER, kwargs...)

timeless(run) = [Base.structdiff(row, (; seconds=0)) for row in run.history]
all_arrays(tuned) = [arrays(tuned.run.model); arrays(tuned.backbone)]

@testset "the last blocks, the last convolution and the head are trained, and nothing else" begin
    before, tuned = backbone_of(), tune(; epochs=6)
    frozen = length(Flux.trainables(before[1:7]))
    changed = [a != b for (a, b) in zip(arrays(before), arrays(tuned.backbone))]
    @test !any(changed[1:frozen]) && all(changed[(frozen + 1):end])
    @test tuned.run.model[:dense1].weight != HEAD.model[:dense1].weight
    @test tuned.run.model[:standardise].mean == HEAD.model[:standardise].mean
    # It learns, and its rows are those of the head on the features of the backbone that it returns.
    run = tuned.run
    @test run.kept_epoch >= 1 && keys(run.model) == keys(HEAD.model) && run.input == (1, 1, TOP)
    score = evaluate(run.model, features_of(tuned.backbone), V; part=:validation)
    @test score.total ≈ run.history[run.kept_epoch].validation_total rtol = 1e-4
    @test score.total < HEAD.history[HEAD.kept_epoch].validation_total
    @test run.settings.learning_rate == 0.002 && run.data.fingerprint == DATA.fingerprint
    @test isempty(filter(!=("tiny.safetensors"), readdir(FOLDER)))
end

@testset "bit-equal when repeated, another with another seed" begin
    runs = [tune(; seed) for seed in (1, 1, 2)]
    @test all_arrays(runs[1]) == all_arrays(runs[2]) != all_arrays(runs[3])
    @test timeless(runs[1].run) == timeless(runs[2].run)
end

@testset "the head of a file, and the images' backbone by its path" begin
    weights = write_weights(joinpath(mktempdir(), "head.safetensors"), HEAD.model, layers(HEAD))
    @test all_arrays(tune(; head=weights, backbone=PATH)) == all_arrays(tune())
end

@testset "the start is kept where no epoch is better" begin
    tuned = tune(; learning_rate=10, epochs=2)
    @test (tuned.run.kept_epoch, length(tuned.run.history)) == (0, 2)
    @test all_arrays(tuned) == [arrays(HEAD.model); arrays(backbone_of())]
end

# Of as many roundings as the frozen layers have, see tests/julia/backbone.jl; `frozen` 0: the first convolution's output.
@testset "the frozen blocks are computed once, $channels channels, $frozen" for channels in (1, 3), frozen in (0, 1, 5)
    data = tiny_data(; size=(33, 20, channels))
    for change in (identity, Flux.f64)    # with the kernels and without
        chain = change(backbone_of(data))
        mktempdir() do folder
            found = frozen_activations(chain, frozen, data, folder, Returns(false))
            chosen = findall(<=(1), data.split)
            truth = Flux.f64(chain)[1:(2 + frozen)](Float64.(data.images[:, :, :, chosen]))
            @test found.size == size(truth)[1:3]
            @test found.data.labels == data.labels[chosen] && found.data.split == data.split[chosen]
            ours = permutedims(reshape(found.data.images, found.size[3], found.size[1], found.size[2], :), (2, 3, 1, 4))
            @test maximum(abs, ours .- truth) <= 1000 * eps(Float32) * maximum(abs, truth)
        end
    end
end

@testset "interrupted" begin
    start = [arrays(HEAD.model); arrays(backbone_of())]
    for stopped in (tune(; on_images=Returns(true)), tune(; on_batch=Returns(true)))
        @test (stopped.run.ended, stopped.run.kept_epoch, stopped.run.history) == (:interrupted, 0, [])
        @test all_arrays(stopped) == start
    end
    counted = []
    tune(; epochs=1, on_images=(done, all) -> (push!(counted, (done, all)); false))
    @test last(counted) == (160, 160) && length(counted) == cld(160, 16)
end

@testset "diverged: the last good weights are kept" begin
    backbone = backbone_of()
    err = try
        tune(; backbone, learning_rate=1e38)
    catch err
        err
    end
    @test err isa DivergedError && err.kept_epoch == 0
    @test arrays(backbone) == arrays(backbone_of())
    @test err.run.model[:output].weight == HEAD.model[:output].weight
end

@testset "what is saved is read again" begin
    tuned, path = tune(), joinpath(mktempdir(), "tuned.safetensors")
    @test save_backbone(path, tuned.backbone, PATH) == path
    @test arrays(load_backbone(path)) == arrays(tuned.backbone)
    (found, metadata), (expected, header) = read_tensors(path, Float32, "a backbone"), read_tensors(PATH, Float32, "a backbone")
    @test Set(keys(found)) == Set(keys(expected))
    @test delete!(copy(metadata), "fingerprint") == delete!(copy(header), "fingerprint")
    # An unchanged backbone has the bytes of its file in the order of the network.
    same = save_backbone(joinpath(dirname(path), "same.safetensors"), backbone_of(), PATH)
    bytes = reduce(vcat, [reinterpret(UInt8, vec(last(pair))) for pair in first(made_backbone())])
    @test last(read_tensors(same, Float32, "a backbone"))["fingerprint"] == bytes2hex(sha256(bytes)) != metadata["fingerprint"]
    @test first(read_tensors(same, Float32, "a backbone")) == expected
end

@testset "what cannot be done is refused" begin
    @test_throws "`unfreeze` must be 1 to 7, the backbone's blocks; received: 0" tune(; unfreeze=0)
    @test_throws "`unfreeze` must be 1 to 7, the backbone's blocks; received: 8" tune(; unfreeze=8)
    @test_throws "Only a variant on a backbone can be fine-tuned; received \"l2\"" tune(; v=variant("l2"))
    @test_throws "needs images, and tiny holds a backbone's features" tune(; data=features_of(backbone_of()))
    @test_throws "`balance` cannot be \"augment\"" tune(; balance="augment")
    @test_throws "takes images of 20×20 pixels" tune(; backbone=load_backbone(PATH; image_size=20))
    @test_throws "`epochs` must be" tune(; epochs=0)
    both = Flux.Chain(; beside=Flux.Parallel(vcat, backbone_of(), backbone_of()))
    @test_throws "Only one backbone can be fine-tuned" tune(; backbone=both)
    @test_throws "Only one backbone can be written" save_backbone(joinpath(FOLDER, "x"), both, PATH)
end
