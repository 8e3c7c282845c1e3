using PhotoFlux: dataset_of, identities, known!

const v = variant("dense_l2")

# As `data_of`, with a fingerprint of its own and another split or other images.
function named(name; seed=1, shift=0)
    d = data_of(v; seed)
    return PreparedDataset(d.images, d.labels, circshift(d.split, shift), d.classes, name, name)
end

const own, other = named("own"), named("other"; shift=1)
const run = train(v, own; epochs=1)
positions(data, parts...) = reduce(vcat, (indices(data, part) for part in parts))

@testset "its own parts are what they were" begin
    for part in (:train, :validation, :test)
        found = evaluate(run, own; part)
        @test (found.images, found.left_out) == (length(indices(own, part)), 0)
    end
end

@testset "of another split what was seen is left out" begin
    seen = intersect(indices(other, :test), positions(own, :train, :validation))
    new = setdiff(indices(other, :test), seen)
    @test !isempty(seen)
    if isempty(new)
        @test_throws "has seen all $(length(seen)) images of the part :test of other" evaluate(run, other)
    end
    mixed = PreparedDataset(own.images, own.labels, fill(0x02, 48), own.classes, "all", "all")
    found = @test_logs (:info, r"40 of 48 images were left out: the model has seen them") evaluate(run, mixed)
    @test (found.images, found.left_out) == (8, 40)
    expected = evaluate(run, own)
    @test (found.accuracy, found.confusion) == (expected.accuracy, expected.confusion)
    foreign = named("foreign"; seed=9)
    @test evaluate(run, foreign; part=:train).left_out == 0
end

@testset "a fit from other weights" begin
    more = train(v, other; epochs=1, initial=run)
    test_ids, ids = identities(other, indices(other, :test)), known!(run.seen)
    expected = count(in(Set([ids.train; ids.validation])), test_ids)
    if expected == length(test_ids)
        @test_throws "has seen all" evaluate(more, other)
    else
        @test evaluate(more, other).left_out == expected
    end
    @test issubset(ids.train, known!(more.seen).train)
    @test evaluate(more, other; part=:train).left_out == 0
end

mktempdir() do root
    folder = save_run(joinpath(root, "run"), run)
    @testset "there and back" begin
        back = load_run(folder)
        @test (known!(back.seen).train, back.seen.validation, back.seen.unknown) == (known!(run.seen).train, run.seen.validation, "")
        @test train(v, other; epochs=1, initial=folder).seen.unknown == ""
    end

    @testset "what is not known is said" begin
        weights = cp(joinpath(folder, "weights.safetensors"), joinpath(root, "bare.safetensors"))
        bare = train(v, own; epochs=1, initial=weights)
        @test_logs (:warn, r"It is not known which images the model has seen.*bare.safetensors is a weights file") evaluate(bare, named("foreign"; seed=9))
        rm(joinpath(folder, "seen.safetensors"))
        @test occursin("does not say it", load_run(folder).seen.unknown)
        write(joinpath(folder, "seen.safetensors"), "no list")
        @test_throws "is not a list of seen images" load_run(folder)
    end
end

@testset "the data of a run" begin
    x, y = rand(Xoshiro(2), UInt8, 7, 6, 1, 60), mod.(0:59, 3)
    data = dataset_of((x[:, :, :, 1:40], y[1:40]), (x[:, :, :, 41:60], y[41:60]), ["a", "b", "c"]; name="three", seed=7)
    three = train(v, data; epochs=1)
    mktempdir() do root
        back = load_run(save_run(joinpath(root, "three"), three))
        @test back.data == three.data
        @test (back.data.seed, back.data.images, back.settings.seed) == (7, 60, 42)
    end
end
