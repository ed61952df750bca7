// pipestats [options] FILE.spv ..: compiles the compute shader of each file on the first Vulkan device, and prints what its
// compiler reports as a line of JSON each.
//   -d FOLDER    writes machine code to FOLDER/NAME.txt, where the driver can print it
//   -r, -2       without robust buffer access; without that of VK_EXT_robustness2
//   -v           allows the subgroup's size to vary
//   -t SECONDS   a file that takes longer ends the program by SIGALRM, 60 unless told
// Times are the thread's own, so that a busy machine does not lengthen them.
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

enum { MOST_BINDINGS = 32, MOST_EXECUTABLES = 4 };

typedef struct {
    const char *code_folder;
    bool robust, robust2, varying;
    uint32_t limit;
} Options;

// A shader as its words describe it: entry point, invocations of a workgroup, bindings of set 0.
typedef struct {
    uint32_t *words;
    size_t bytes;
    const char *entry;
    uint32_t invocations;
    VkDescriptorSetLayoutBinding bindings[MOST_BINDINGS];
    uint32_t binding_count;
} Module;

static VkDevice device;
static bool reports;
static PFN_vkGetPipelineExecutablePropertiesKHR get_executables;
static PFN_vkGetPipelineExecutableStatisticsKHR get_statistics;
static PFN_vkGetPipelineExecutableInternalRepresentationsKHR get_representations;

static void check(const char *what, VkResult result) {
    if (result == VK_SUCCESS) return;
    fprintf(stderr, "pipestats: %s: VkResult %d\n", what, result);
    exit(1);
}

static void print_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if ((unsigned char)*text >= 32) putchar(*text);
    }
    putchar('"');
}

static double thread_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Opens the first device with all that the core offers and what compilers report by; robustness as asked.
static void open_device(const Options *options) {
    VkInstance instance;
    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pEngineName = "wgpu-hal", .apiVersion = VK_API_VERSION_1_3};
    const VkInstanceCreateInfo instance_info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
    check("vkCreateInstance", vkCreateInstance(&instance_info, NULL, &instance));
    uint32_t count = 1;
    VkPhysicalDevice physical = VK_NULL_HANDLE;
    vkEnumeratePhysicalDevices(instance, &count, &physical);
    if (!physical) check("no Vulkan device", VK_ERROR_INITIALIZATION_FAILED);

    vkEnumerateDeviceExtensionProperties(physical, NULL, &count, NULL);
    VkExtensionProperties *offered = calloc(count, sizeof *offered);
    vkEnumerateDeviceExtensionProperties(physical, NULL, &count, offered);
    const char *wanted[] = {"VK_KHR_pipeline_executable_properties", "VK_EXT_robustness2", "VK_KHR_cooperative_matrix"};
    const char *enabled[3];
    bool has[3] = {false};
    uint32_t enabled_count = 0;
    for (int at = 0; at < 3; at++) {
        for (uint32_t e = 0; e < count && !has[at]; e++) has[at] = !strcmp(wanted[at], offered[e].extensionName);
        if (has[at]) enabled[enabled_count++] = wanted[at];
    }
    free(offered);
    reports = has[0];

    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executables = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    VkPhysicalDeviceRobustness2FeaturesEXT robustness = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT};
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR cooperative = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceVulkan13Features v13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES};
    VkPhysicalDeviceVulkan12Features v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &v13};
    VkPhysicalDeviceVulkan11Features v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &v12};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11};
    void **end = &v13.pNext;
    if (has[0]) *end = &executables, end = &executables.pNext;
    if (has[1]) *end = &robustness, end = &robustness.pNext;
    if (has[2]) *end = &cooperative, end = &cooperative.pNext;
    vkGetPhysicalDeviceFeatures2(physical, &features);
    v12.bufferDeviceAddressCaptureReplay = false;
    robustness.nullDescriptor = false;
    features.features.robustBufferAccess &= options->robust;
    v13.robustImageAccess &= options->robust;
    robustness.robustBufferAccess2 &= options->robust && options->robust2;
    robustness.robustImageAccess2 &= options->robust && options->robust2;

    const float priority = 1;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    const VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = &features, .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue, .enabledExtensionCount = enabled_count, .ppEnabledExtensionNames = enabled};
    check("vkCreateDevice", vkCreateDevice(physical, &info, NULL, &device));
    get_executables = (void *)vkGetDeviceProcAddr(device, "vkGetPipelineExecutablePropertiesKHR");
    get_statistics = (void *)vkGetDeviceProcAddr(device, "vkGetPipelineExecutableStatisticsKHR");
    get_representations = (void *)vkGetDeviceProcAddr(device, "vkGetPipelineExecutableInternalRepresentationsKHR");
}

static bool read_words(const char *path, Module *module) {
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    fseek(file, 0, SEEK_END);
    module->bytes = ftell(file);
    rewind(file);
    module->words = malloc(module->bytes);
    bool whole = fread(module->words, 1, module->bytes, file) == module->bytes;
    fclose(file);
    return whole && module->bytes >= 20 && module->words[0] == 0x07230203;
}

// Of SPIR-V only what a pipeline layout must know.
static bool describe(Module *module) {
    enum { ENTRY_POINT = 15, EXECUTION_MODE = 16, VARIABLE = 59, DECORATE = 71, LOCAL_SIZE = 17, BINDING = 33, UNIFORM = 2 };
    uint32_t ids = module->words[3];
    uint32_t *binding_of = malloc(ids * sizeof *binding_of);
    memset(binding_of, 0xff, ids * sizeof *binding_of);
    bool fits = true;
    for (size_t at = 5, length; at < module->bytes / 4; at += length ? length : 1) {
        const uint32_t *word = module->words + at;
        length = word[0] >> 16;
        switch (word[0] & 0xffff) {
        case ENTRY_POINT: module->entry = (const char *)(word + 3); break;
        case EXECUTION_MODE:
            if (word[2] == LOCAL_SIZE) module->invocations = word[3] * word[4] * word[5];
            break;
        case DECORATE:
            if (word[2] == BINDING) binding_of[word[1]] = word[3];
            break;
        case VARIABLE:
            if (binding_of[word[2]] == UINT32_MAX) break;
            fits = module->binding_count < MOST_BINDINGS;
            if (!fits) break;
            module->bindings[module->binding_count++] = (VkDescriptorSetLayoutBinding){
                .binding = binding_of[word[2]], .descriptorCount = 1, .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                .descriptorType =
                    word[3] == UNIFORM ? VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER};
        }
    }
    free(binding_of);
    return fits && module->entry;
}

static void print_statistics(const VkPipelineExecutableInfoKHR *executable) {
    uint32_t count = 0;
    get_statistics(device, executable, &count, NULL);
    VkPipelineExecutableStatisticKHR *statistics = calloc(count, sizeof *statistics);
    for (uint32_t at = 0; at < count; at++) statistics[at].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    get_statistics(device, executable, &count, statistics);
    printf(",\"statistics\":{");
    for (uint32_t at = 0; at < count; at++) {
        if (at) putchar(',');
        print_string(statistics[at].name);
        putchar(':');
        switch (statistics[at].format) {
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR: printf("%g", statistics[at].value.f64); break;
        case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: printf("%s", statistics[at].value.b32 ? "true" : "false"); break;
        default: printf("%lld", (long long)statistics[at].value.i64);
        }
    }
    printf("}");
    free(statistics);
}

// Writes the last of the driver's representations: machine code, after what it was made from.
static void write_code(const VkPipelineExecutableInfoKHR *executable, const char *path) {
    uint32_t count = 0;
    get_representations(device, executable, &count, NULL);
    if (count == 0) return;
    VkPipelineExecutableInternalRepresentationKHR *texts = calloc(count, sizeof *texts);
    for (uint32_t at = 0; at < count; at++) texts[at].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    get_representations(device, executable, &count, texts);
    for (uint32_t at = 0; at < count; at++) texts[at].pData = calloc(1, texts[at].dataSize + 1);
    get_representations(device, executable, &count, texts);
    FILE *file = fopen(path, "w");
    if (file) {
        fprintf(file, "; %s\n%s", texts[count - 1].name, (const char *)texts[count - 1].pData);
        fclose(file);
    }
    for (uint32_t at = 0; at < count; at++) free(texts[at].pData);
    free(texts);
}

static VkResult compile(const Module *module, VkPipelineLayout layout, const Options *options, VkPipeline *pipeline) {
    VkShaderModule shader;
    const VkShaderModuleCreateInfo shader_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = module->bytes, .pCode = module->words};
    VkResult result = vkCreateShaderModule(device, &shader_info, NULL, &shader);
    if (result != VK_SUCCESS) return result;
    VkPipelineCreateFlags flags = 0;
    if (reports) flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
    if (reports && options->code_folder) flags |= VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO, .layout = layout, .flags = flags,
        .stage = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .stage = VK_SHADER_STAGE_COMPUTE_BIT,
            .flags = options->varying ? VK_PIPELINE_SHADER_STAGE_CREATE_ALLOW_VARYING_SUBGROUP_SIZE_BIT : 0,
            .module = shader, .pName = module->entry}};
    result = vkCreateComputePipelines(device, VK_NULL_HANDLE, 1, &info, NULL, pipeline);
    vkDestroyShaderModule(device, shader, NULL);
    return result;
}

static void report(const Module *module, const char *name, const Options *options) {
    VkDescriptorSetLayout set;
    const VkDescriptorSetLayoutCreateInfo set_info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = module->binding_count,
        .pBindings = module->bindings};
    check("vkCreateDescriptorSetLayout", vkCreateDescriptorSetLayout(device, &set_info, NULL, &set));
    VkPipelineLayout layout;
    const VkPipelineLayoutCreateInfo layout_info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &set};
    check("vkCreatePipelineLayout", vkCreatePipelineLayout(device, &layout_info, NULL, &layout));
    VkPipeline pipeline = VK_NULL_HANDLE;
    double begin = thread_seconds();
    VkResult result = compile(module, layout, options, &pipeline);
    printf(",\"seconds\":%.4f", thread_seconds() - begin);
    if (result != VK_SUCCESS) {
        printf(",\"failure\":\"VkResult %d\"", result);
        return;
    }
    VkPipelineExecutablePropertiesKHR about[MOST_EXECUTABLES] = {0};
    for (int at = 0; at < MOST_EXECUTABLES; at++) about[at].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    uint32_t count = reports ? MOST_EXECUTABLES : 0;
    const VkPipelineInfoKHR of = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = pipeline};
    if (reports) get_executables(device, &of, &count, about);
    printf(",\"executables\":[");
    for (uint32_t at = 0; at < count; at++) {
        const VkPipelineExecutableInfoKHR executable = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = pipeline, .executableIndex = at};
        printf("%s{\"subgroup\":%u", at ? "," : "", about[at].subgroupSize);
        print_statistics(&executable);
        printf("}");
        if (at == 0 && options->code_folder) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s.txt", options->code_folder, name);
            write_code(&executable, path);
        }
    }
    printf("]");
    vkDestroyPipeline(device, pipeline, NULL);
    vkDestroyPipelineLayout(device, layout, NULL);
    vkDestroyDescriptorSetLayout(device, set, NULL);
}

int main(int argc, char **argv) {
    Options options = {.robust = true, .robust2 = true, .limit = 60};
    int option;
    while ((option = getopt(argc, argv, "d:r2vt:")) != -1) {
        switch (option) {
        case 'd': options.code_folder = optarg; break;
        case 'r': options.robust = false; break;
        case '2': options.robust2 = false; break;
        case 'v': options.varying = true; break;
        case 't': options.limit = atoi(optarg); break;
        default: return 2;
        }
    }
    open_device(&options);
    for (int at = optind; at < argc; at++) {
        const char *base = strrchr(argv[at], '/');
        char name[256];
        snprintf(name, sizeof name, "%s", base ? base + 1 : argv[at]);
        *strchrnul(name, '.') = 0;
        alarm(options.limit);
        printf("{\"module\":");
        print_string(name);
        Module module = {0};
        if (read_words(argv[at], &module) && describe(&module)) {
            printf(",\"invocations\":%u", module.invocations);
            fflush(stdout);
            report(&module, name, &options);
        } else {
            printf(",\"failure\":\"no SPIR-V of one compute shader\"");
        }
        printf("}\n");
        fflush(stdout);
        free(module.words);
    }
    return 0;
}
