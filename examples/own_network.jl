# A network of your own in Julia: trained with an L2 penalty and early stopping, killed or not, saved, loaded and scored.
#     julia examples/own_network.jl prepared/
# where `prepared/` is what `photoflux prepare` made; without it, on images that are made here.
using PhotoFlux, PhotoFlux.Flux

include("my_model.jl")

function made_images()
    images, labels = rand(UInt8(0):UInt8(99), 16, 16, 3, 240), Int32[mod(i, 2) for i in 1:240]
    foreach(i -> images[1:8, :, :, i] .+= 0x90 * UInt8(labels[i]), 1:240)
    split = UInt8[(0, 0, 0, 0, 1, 2)[cld(mod1(i, 12), 2)] for i in 1:240]
    return PreparedDataset(images, labels, split, ["dark", "bright"], "made", "none")
end

data = isempty(ARGS) ? made_images() : open_dataset(ARGS[1])
width, height, channels, _ = size(data.images)
run = train(build((width, height, channels), length(data.classes)), data; name="residual", penalty=L2(0.001), patience=3, epochs=5)
display(run)
println("\ntest accuracy ", evaluate(run, data).accuracy)

folder = joinpath(mktempdir(), "run")
save_run(folder, run)
println("loaded again  ", evaluate(load_run(folder), data).accuracy)
