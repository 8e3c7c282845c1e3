using PhotoFlux: GROUPS_OF, Layer, Proximal, kernels

# What a layer makes of an image, by the layer itself.
@testset "the list is what the model is, $(v.name), $classes classes" for v in variants(), classes in (2, 5)
    list, model = layers_of(v; classes), small_model(v; classes)
    @test collect(keys(model)) == [layer.name for layer in list]
    x = pixels(v, 1)
    for (layer, made) in zip(list, model.layers)
        x = made(x)
        @test size(x)[1:(end - 1)] == layer.shape
        if isempty(layer.weight)
            @test !(layer.name in kernels(list))
        else
            @test size(made.weight) == layer.weight
            @test length(made.bias) == last(layer.shape)
            @test made.σ === (layer.relu ? Flux.relu : identity)
        end
        @test layer.kind != "dropout" || made.p == layer.rate
    end
    asked(group) = v.proximal && haskey(v.penalty, group) ? Proximal(v.penalty[group]) : get(v.penalty, group, NoPenalty())
    @test [layer.penalty for layer in list if !isempty(layer.weight)] == [asked(group) for group in
        [fill("conv", v.architecture == "photo_cnn" ? 3 : 0); fill("hidden", length(v.hidden)); "output"]]
end

# A group that the list does not have would be accepted and dropped silently; one that the table lacks could not be asked for.
@testset "the groups of $architecture are those of its layers" for architecture in setdiff(keys(GROUPS_OF), ["chain"])
    backbone, input = architecture == "transfer" ? ("mine", (1, 1, 4)) : (nothing, (4, 4, 1))
    list(; kwargs...) = layers(Variant(; name="mine", architecture, hidden=[3, 2], backbone, kwargs...), input, 2)
    (; penalty, dropout) = GROUPS_OF[architecture]
    groups = [list(; penalty=Dict(group => L2(0.1))) for group in penalty]
    @test sum(count(layer -> layer.penalty == L2(0.1), one) for one in groups) == length(kernels(list()))
    @test all(any(layer -> layer.penalty == L2(0.1), one) for one in groups)
    @test all(any(layer -> layer.rate == 0.5f0, list(; dropout=Dict(group => 0.5))) for group in dropout)
end

@test_throws "`input` must be" layers("l2", (1, 10, 3), 2)
@test_throws "The variant \"transfer\" takes features, so `input` must be (1, 1, features); received: (4, 4, 1)." layers("transfer", (4, 4, 1), 2)
@test_throws "`classes` must be 2 or more; received: 1" layers("l2", (10, 10, 3), 1)
