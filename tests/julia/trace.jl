using PhotoFlux: augmented, canonical_weights, stopping_epochs, trace

# A trace is what training does: its last weights are those of the same steps made one by one.
mktempdir() do root
    @testset "$(v.name)" for v in (variant("l1"), variant("dropout"), variant("transfer_elastic_net"))
        model = small_model(v)
        path = write_weights(joinpath(root, "w"), model, layers_of(v))
        images, labels = rand(Xoshiro(1), v.backbone === nothing ? UInt8 : Float32, input_of(v)..., 4, 3), Int32[0 1 1; 1 0 1; 0 0 1; 1 1 0]
        numbers = Dict(trace(v, path, images, labels, 2; learning_rate=0.01))
        undropped = PhotoFlux.inference(model)
        state = Optimisers.setup(KerasAdam(0.01), undropped)
        penalties = PhotoFlux.kernel_penalties(layers_of(v))
        for step in 1:3
            x, y = Float32.(images[:, :, :, :, step]), PhotoFlux.targets(labels[:, step], 2)
            result = PhotoFlux.train_step!(undropped, state, PhotoFlux.loss_of(v.loss, 2), penalties, x, y, ones(Float32, 4))
            @test numbers["loss"][step] == result.loss
            # A penalty's terms are added in another order where the update is made in the same pass.
            @test numbers["total"][step] ≈ result.loss + result.penalty rtol = 8eps(Float32)
            step == 1 && @test numbers["logits"] == result.logits
        end
        @test all(numbers["final/$name"] == array for (name, array) in canonical_weights(undropped, layers_of(v)))
        @test numbers["first/output.kernel"] != numbers["final/output.kernel"]
    end

    @testset "masks take the place of dropout" begin
        v = variant("dropout")
        path = write_weights(joinpath(root, "w"), small_model(v), layers_of(v))
        images, labels = rand(Xoshiro(1), UInt8, input_of(v)..., 2, 1), Int32[0; 1;;]
        run(masks) = Dict(trace(v, path, images, labels, 2; learning_rate=0.01, masks))
        pool, dense = ones(Float32, 16, 6, 5, 2, 1), ones(Float32, 128, 2, 1)
        ones_ = run(Dict("pool_dropout" => pool, "dense1_dropout" => dense))
        @test ones_["final/conv1.kernel"] == run(Dict())["final/conv1.kernel"]
        dense[:, 1, 1] .= 0  # the first image's logit is the output's bias, 0
        @test run(Dict("dense1_dropout" => dense))["logits"][1] == 0
        pool[3, 2, 4, :, 1] .= 5
        @test run(Dict("pool_dropout" => pool))["logits"] != ones_["logits"]
    end
end

@testset "early stopping, augmentation and pixels, asked for by themselves" begin
    @test stopping_epochs([3, 2, 2, 2, 1], 2) == (4, 2)
    @test stopping_epochs([3, 2, 2, 1, 5, 5], 2) == (6, 4)
    @test stopping_epochs([3, 2, 1], 5) == (3, 3)
    images = rand(Xoshiro(1), UInt8, 6, 4, 3, 2)
    out = augmented(images, [true, false], [false, true], Float32[0, 0], Float32[1, 1])
    @test out[:, :, :, 1] == images[end:-1:1, :, :, 1]
    @test out[:, :, :, 2] == images[:, end:-1:1, :, 2]
end
