# The Julia side of gpu.py: a training step of the photo CNN (180×180 colour photos, two classes) by PhotoFlux and by plain Flux on an
# NVIDIA GPU, from bytes that are on the card to the loss in the computer's memory.
#
# Usage: julia gpu.jl [BATCH...]    Each result is a line of JSON: who, precision, batch, milliseconds (median of rounds), memory in GB.
using CUDA, Flux, PhotoFlux, cuDNN
using PhotoFlux: DeviceBuffers, JSON, Optimisers
using Statistics: median

const INPUT = (180, 180, 3)
const BATCHES = isempty(ARGS) ? [32, 256] : parse.(Int, ARGS)
const WARM, ROUNDS, STEPS = 8, 5, 20

# The bytes and labels of some batches on the card.
material(n) = [(CuArray(rand(UInt8, INPUT..., n)), rand(Int32[0, 1], n)) for _ in 1:4]

# The median milliseconds of step(i).
function milliseconds(step)
    CUDA.@sync foreach(step, 1:WARM)
    rounds = [@elapsed(CUDA.@sync foreach(step, 1:STEPS)) / STEPS for _ in 1:ROUNDS]
    return 1000 * median(rounds)
end

function report(who, precision, batch, step)
    GC.gc()
    CUDA.reclaim()
    before = CUDA.free_memory()
    time = milliseconds(step)
    println(JSON.json((; who, precision, batch, milliseconds=round(time; digits=3), gigabytes=round((before - CUDA.free_memory()) / 1e9; digits=2))))
    flush(stdout)
end

# As a fit does it: the images of a batch are chosen from the dataset, which is on the card as bytes.
function ours(name, batch, tf32)
    device, v = PhotoFlux.open_device("cuda"), variant(name)
    list = PhotoFlux.layers(v, INPUT, 2)
    model = PhotoFlux.on_device(device, build_model(list; rng=PhotoFlux.Xoshiro(1)))
    optimiser, penalties = Optimisers.setup(KerasAdam(0.001), model), PhotoFlux.kernel_penalties(list)
    images, labels, buffers = rand(UInt8, INPUT..., 4batch), rand(Int32[0, 1], 4batch), DeviceBuffers(device; tf32)
    PhotoFlux.keep_images!(buffers, images)
    loss, weights = PhotoFlux.loss_of("cross_entropy", 2), ones(Float32, batch)
    return function (i)
        items = PhotoFlux.Item.(batch * mod(i, 4) .+ (1:batch), 0)
        x = PhotoFlux.buffer(buffers, :gathered, :odd, INPUT..., batch)
        PhotoFlux.start_gathering!(buffers, x, nothing, items; seed=1, epoch=1)
        y = PhotoFlux.targets([labels[item.index] for item in items], 2)
        return PhotoFlux.train_step!(model, optimiser, loss, penalties, x, y, weights, buffers).loss
    end
end

function plain(batch)
    model = gpu(Chain(Conv((3, 3), 3 => 16, relu; pad=SamePad()), MaxPool((2, 2)), Conv((3, 3), 16 => 32, relu; pad=SamePad()),
        Conv((3, 3), 32 => 64, relu; pad=SamePad()), Flux.flatten, Dense(90 * 90 * 64 => 128, relu), Dense(128 => 1)))
    optimiser, batches = Flux.setup(Adam(1f-3), model), material(batch)
    targets = [CuArray(reshape(Float32.(labels), 1, :)) for (_, labels) in batches]
    return function (i)
        k = mod1(i, 4)
        x = Float32.(first(batches[k])) ./ 255.0f0
        value, gradient = Flux.withgradient(m -> Flux.logitbinarycrossentropy(m(x), targets[k]), model)
        Flux.update!(optimiser, model, only(gradient))
        return value
    end
end

println("# ", CUDA.name(CUDA.device()), ", driver ", CUDA.driver_version(), ", CUDA ", CUDA.runtime_version(), ", cuDNN ", cuDNN.version())
for tf32 in (false, true), batch in BATCHES
    report("PhotoFlux", tf32 ? "tf32" : "float32", batch, ours("baseline", batch, tf32))
end
foreach(batch -> report("PhotoFlux, l2", "float32", batch, ours("l2", batch, false)), BATCHES)
# CUDA.jl's default lets cuDNN use TF32; its narrowest mode does too, so that Float32 is had by a method in place of its own.
foreach(batch -> report("Flux", "tf32", batch, plain(batch)), BATCHES)
@eval cuDNN math_mode(mode=CUDA.math_mode()) = CUDNN_FMA_MATH
foreach(batch -> report("Flux", "float32", batch, Base.invokelatest(plain, batch)), BATCHES)
