"""Updates made small: in what form a site's training crosses to the coordinator, one file each."""
